"""What this process knows of plug-ins, forgotten."""

from __future__ import annotations

from typing import Any

import pytest

from sweeps.config import plugins
from sweeps.execution.worker import workbench


def forget_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    for registry in plugins.REGISTRIES.values():
        monkeypatch.setattr(registry, "_items", {k: v for k, v in registry._items.items() if not is_own(v)})
    monkeypatch.setattr(plugins, "_loaded", {})
    workbench.cache_clear()


def is_own(item: Any) -> bool:
    return getattr(item, "compute", item).__module__.startswith(("plugin_", "my_package"))
