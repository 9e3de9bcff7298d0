"""Where cells run: in this process, or on Ray (`ray_executor.py`). Both call the same function on the same cells."""

from __future__ import annotations

from typing import Protocol

from sweeps.execution.worker import work_cell
from sweeps.planning.tasks import Cell, Result
from sweeps.storage.base import Folder
from sweeps.trials.scenario_cache import RunEnvironment


class Queue(Protocol):
    """What is to be done, in which order: see `sweeps.planning.schedule.Schedule`."""

    @property
    def finished(self) -> bool: ...

    def next(self, slots: int) -> Cell | None: ...

    def done(self, cell: Cell, result: Result) -> None: ...

    def lost(self, cell: Cell, error: str) -> None: ...


class Executor(Protocol):
    """Runs cells. A cell that fails never stops the others."""

    def run(self, sweep_dir: Folder, place: RunEnvironment, queue: Queue) -> None: ...

    def close(self) -> None: ...


class InlineExecutor:
    """One cell after the other in this process: for debugging, tests, and machines without Ray."""

    def run(self, sweep_dir: Folder, place: RunEnvironment, queue: Queue) -> None:
        while (cell := queue.next(slots=1)) is not None:
            queue.done(cell, work_cell(sweep_dir, place, cell))

    def close(self) -> None:
        """Nothing to stop."""
