"""Where tasks run: in this process, or on Ray (`ray_executor.py`). Both call the same function on the same tasks."""

from __future__ import annotations

from typing import Any, Protocol

from sweeps.execution.worker import work_task
from sweeps.planning.tasks import Outcome, Task
from sweeps.storage.base import Folder
from sweeps.trials.scenario_cache import RunEnvironment


class Queue(Protocol):
    """The work and its order: see `sweeps.planning.schedule.Schedule`."""

    stopped: bool

    @property
    def finished(self) -> bool: ...

    def next(self, slots: int) -> Task | None: ...

    def done(self, task: Task, outcome: Outcome) -> None: ...

    def lost(self, task: Task, error: str) -> None: ...

    def leave(self, task: Task) -> None: ...


class Executor(Protocol):
    """Runs tasks. A task that fails never stops the others.

    Attributes:
        results: the `ray.tune.ResultGrid` of the last fit, if there was one.
    """

    results: Any

    def run(self, sweep_dir: Folder, place: RunEnvironment, queue: Queue) -> None: ...

    def close(self) -> None: ...


class InlineExecutor:
    """One task after the other in this process: for debugging, tests, and machines without Ray."""

    results = None

    def run(self, sweep_dir: Folder, place: RunEnvironment, queue: Queue) -> None:
        while (task := queue.next(slots=1)) is not None:
            queue.done(task, work_task(sweep_dir, place, task))

    def close(self) -> None:
        """Nothing to stop."""
