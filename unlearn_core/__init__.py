"""Poisoning attacks, unlearning methods and metrics in plain PyTorch: `import unlearn_core as uc`.

Importing this package loads nothing heavy: `unlearn_core.metrics` stays usable without torch. The names of `__all__`
are imported at their first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unlearn_core.version import SCIENCE_VERSION

if TYPE_CHECKING:
    from unlearn_core import attacks, metrics, unlearners
    from unlearn_core.checks import InputError
    from unlearn_core.library.run import Rung, UnlearningRun, unlearn
    from unlearn_core.training.recipe import Recipe

__all__ = [
    "SCIENCE_VERSION", "InputError", "Recipe", "Rung", "UnlearningRun", "attacks", "metrics", "unlearn", "unlearners",
]  # fmt: skip

_HOMES = {
    "InputError": "unlearn_core.checks",
    "Recipe": "unlearn_core.training.recipe",
    "Rung": "unlearn_core.library.run",
    "UnlearningRun": "unlearn_core.library.run",
    "unlearn": "unlearn_core.library.run",
}
"""The module that holds a name; the other names are packages."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'unlearn_core' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name) if name in _HOMES else import_module(f"unlearn_core.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
