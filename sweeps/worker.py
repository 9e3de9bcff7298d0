"""What a worker process does with one cell. Knows nothing of Ray: the same function runs in-process."""

from __future__ import annotations

import json
import traceback
from functools import lru_cache
from pathlib import Path
from typing import Any

from sweeps.cell import Cell
from sweeps.run import run_cell
from sweeps.spec import Sweep
from sweeps.workbench import Place, Workbench


@lru_cache(maxsize=1)
def workbench(sweep_dir: Path, place: Place) -> Workbench:
    """One per process: data, models and artifacts survive from cell to cell."""
    return Workbench(Sweep.from_dict(read_manifest(sweep_dir)["spec"]), place)


def read_manifest(sweep_dir: Path) -> dict[str, Any]:
    """The content of `sweep.json`."""
    return dict(json.loads((sweep_dir / "sweep.json").read_text()))


def work_cell(sweep_dir: Path, place: Place, cell: Cell) -> str | None:
    """Do what is missing in `cell`; returns a traceback if it failed as a whole, else None.

    An error of the science is an outcome, not a crash: only a lost process or machine is tried again.
    """
    try:
        run_cell(workbench(sweep_dir, place), sweep_dir, cell)
    except Exception:
        return traceback.format_exc()
    return None
