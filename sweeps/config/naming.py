"""What a sweep is called whose settings were changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sweeps.config.labels import check_name
from sweeps.config.overrides import Changes, changed
from sweeps.config.spec import Sweep
from unlearn_core.checks import InputError


def changed_sweep(raw: Mapping[str, Any], changes: Changes, name: str | None = None) -> Sweep:
    """The sweep that `raw` describes once it is changed.

    Changes that matter give it a name with a hash, so that its results never mix with those of the sweep that it
    comes from.

    Args:
        raw: Settings, as a preset or a file holds them.
        changes: Dotted paths and their new values.
        name: What to call it instead.

    Raises:
        InputError: for anything unknown, missing or out of range.
    """
    sweep = Sweep.from_dict(changed(raw, changes))
    if name is not None:
        return replace(sweep, name=check_name("--name", name))
    if changes and _differs(sweep, raw):
        return replace(sweep, name=check_name("name", f"{sweep.name}-{sweep.identity()[:8]}"))
    return sweep


def _differs(sweep: Sweep, raw: Mapping[str, Any]) -> bool:
    """Whether the sweep differs from what `raw` alone says (which may be nothing complete)."""
    try:
        return sweep.identity() != Sweep.from_dict(raw).identity()
    except InputError:
        return True
