"""What a worker process does with one cell. Knows nothing of Ray: the same function runs in-process."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from sweeps.cell import Cell
from sweeps.files import Folder, check_room, child
from sweeps.leases import Lease
from sweeps.run import run_cell
from sweeps.spec import Sweep
from sweeps.workbench import Place, Workbench
from unlearn_core.checks import InputError


@lru_cache(maxsize=1)
def workbench(sweep_dir: Folder, place: Place) -> Workbench:
    """One per process: data, models and artifacts survive from cell to cell."""
    return Workbench(Sweep.from_dict(read_manifest(sweep_dir)["spec"]), place)


def read_manifest(sweep_dir: Folder) -> dict[str, Any]:
    """The content of `sweep.json`. Raises InputError if there is none."""
    try:
        return dict(json.loads((sweep_dir / "sweep.json").read_text()))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"there is no sweep in {sweep_dir}; name the folder with its sweep.json") from None


@contextlib.contextmanager
def at_work(sweep_dir: Folder, cell: Cell) -> Iterator[None]:
    """Shows others that a worker is at this cell."""
    lease = Lease(working(sweep_dir, cell))
    if isinstance(lease.path, Path):
        lease.path.parent.mkdir(exist_ok=True)
    lease.take()  # whoever else may have it: two workers on one cell harm nothing
    try:
        yield
    finally:
        lease.release()


def working(sweep_dir: Folder, cell: Cell) -> Folder:
    """The lease of whoever works at this cell."""
    return child(sweep_dir / ".working", cell.name)


def work_cell(sweep_dir: Folder, place: Place, cell: Cell) -> str | None:
    """Do what is missing in `cell`; returns a traceback if it failed as a whole, else None.

    An error of the science is an outcome, not a crash: only a lost process or machine is tried again.
    """
    try:
        check_room(sweep_dir)
        with at_work(sweep_dir, cell):
            run_cell(workbench(sweep_dir, place), sweep_dir, cell)
    except Exception:
        return traceback.format_exc()
    return None
