"""What Ray Tune asks for work: the schedule, as a searcher."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from sweeps.execution.executors import Queue
from sweeps.planning.tasks import Outcome, Task, from_wire, to_wire


class CellSearcher(Searcher):
    """Suggests the cells of a queue, at most `most` of them. slots: how many cells may be under way, the first number
    without those that only make a cluster grow."""

    def __init__(self, queue: Queue, slots: Callable[[], tuple[int, int]], *, most: int) -> None:
        super().__init__()
        self.queue, self.slots, self.left = queue, slots, most
        self.live: dict[str, Task] = {}
        self._ended: list[tuple[Task, Outcome | None]] = []  # not told to the queue yet

    def suggest(self, trial_id: str) -> Any:
        self._tell()
        places, most = self.slots()
        if len(self.live) >= most:
            return None
        task = self.queue.next(places) if self.left else None
        if task is None:
            return Searcher.FINISHED if not self.live else None  # once all that ended has been told
        self.left -= 1
        self.live[trial_id] = task
        return {"task": to_wire(task)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Only takes note: Tune would take an error in here, say of the storage, for one of the task."""
        task = self.live.pop(trial_id)
        if error or result is None:
            self._ended.append((task, None))
        else:
            too_large = from_wire(json.loads(result["too_large"])) if result["too_large"] else None
            self._ended.append((task, Outcome(result["error"] or None, too_large)))

    def _tell(self) -> None:
        while self._ended:
            task, outcome = self._ended.pop(0)
            if outcome is None:
                self.queue.lost(task, "its worker was lost again and again, without any progress")
            else:
                self.queue.done(task, outcome)

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a copy for restoring a fit, which is never done."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records say what is done."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a sweep goes on from its records."""
