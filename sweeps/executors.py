"""Where cells run: in this process, or on Ray (`ray_executor.py`). Both call the same function on the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from sweeps.cell import Cell
from sweeps.files import Folder
from sweeps.workbench import Place
from sweeps.worker import work_cell


class Outcome(NamedTuple):
    """What became of a cell; its results are in the record store. error: a traceback, or None if all went well."""

    cell: Cell
    error: str | None


class Executor(Protocol):
    """Runs cells. A cell that fails never stops the others."""

    def map(self, sweep_dir: Folder, place: Place, cells: Sequence[Cell]) -> list[Outcome]: ...

    def close(self) -> None: ...


class InlineExecutor:
    """One cell after the other in this process: for debugging, tests, and machines without Ray."""

    def map(self, sweep_dir: Folder, place: Place, cells: Sequence[Cell]) -> list[Outcome]:
        return [Outcome(cell, work_cell(sweep_dir, place, cell)) for cell in cells]

    def close(self) -> None:
        """Nothing to stop."""
