"""Large grids of poison-train-unlearn-evaluate trials: specification, search, records, tracking.

From a notebook:

    from sweeps import Sweep, run_sweep

    result = run_sweep(Sweep.preset("quick", {"search.trials": 2}), out="results", inline=True)
    result.folder, result.report
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sweeps.commands.notebook import SweepResult as SweepResult
    from sweeps.commands.notebook import run_sweep as run_sweep
    from sweeps.config.spec import Sweep as Sweep

__all__ = ["Sweep", "SweepResult", "run_sweep"]

_PLACES = {
    "Sweep": "sweeps.config.spec",
    "SweepResult": "sweeps.commands.notebook",
    "run_sweep": "sweeps.commands.notebook",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are asked for: most commands need none of them, nor torch."""
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)
