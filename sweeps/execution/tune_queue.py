"""The schedule as Ray Tune sees it: Tune asks a searcher for configurations, and gets the next task."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ray.tune.search import Searcher

from sweeps.execution.executors import Queue
from sweeps.planning.tasks import Outcome, Task, from_wire


class TuneQueue(Searcher):
    """Hands the tasks of a queue to Tune. Nothing is searched here: a study makes its proposals where it runs.

    Args:
        queue: The tasks.
        slots: Says how many tasks may be under way: those that find a place, and with those that make a cluster grow.
        config: Makes the configuration of a task.
        most: No more tasks than this are handed out.
    """

    def __init__(
        self,
        queue: Queue,
        slots: Callable[[], tuple[int, int]],
        config: Callable[[Task], dict[str, Any]],
        *,
        most: int,
    ) -> None:
        super().__init__()
        self.queue, self.slots, self.config, self.left = queue, slots, config, most
        self.live: dict[str, Task] = {}
        self._ended: list[Callable[[], None]] = []  # what the queue does not know yet

    def suggest(self, trial_id: str) -> Any:
        """The configuration of the next task; None if there is none now."""
        self._tell()
        places, most = self.slots()
        if len(self.live) >= most:
            return None
        task = self.queue.next(places) if self.left else None
        if task is None:
            return Searcher.FINISHED if not self.live else None  # once the queue knows of all that ended
        self.left -= 1
        self.live[trial_id] = task
        return self.config(task)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Only takes note: Tune would take an error in here, say of the storage, for one of the task."""
        task = self.live.pop(trial_id)
        self._ended.append(lambda: self._end(task, result or {}, lost=error))

    def _end(self, task: Task, result: Mapping[str, Any], *, lost: bool) -> None:
        if lost:
            self.queue.lost(task, "its worker was lost again and again, without any progress")
        elif result.get("finished"):
            too_large = from_wire(json.loads(result["too_large"])) if result["too_large"] else None
            self.queue.done(task, Outcome(result["error"] or None, too_large))
        else:
            self.queue.leave(task)

    def _tell(self) -> None:
        while self._ended:
            self._ended.pop(0)()

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Which metric is best matters to those who read the results only."""
        return True

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a copy for restoring a fit, which is never done."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records say what is done."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a sweep goes on from its records."""
