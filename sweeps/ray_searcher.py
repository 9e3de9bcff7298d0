"""What Ray Tune asks for work: the schedule, as a searcher."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ray.tune.search import Searcher

from sweeps.cell import Cell
from sweeps.executors import Queue
from sweeps.worker import Result


class CellSearcher(Searcher):
    """Suggests the cells of a queue, at most `most` of them. slots: how many cells run and wait for a place at once."""

    def __init__(self, queue: Queue, slots: Callable[[], int], *, most: int) -> None:
        super().__init__()
        self.queue, self.slots, self.left = queue, slots, most
        self.live: dict[str, Cell] = {}

    def suggest(self, trial_id: str) -> Any:
        slots = self.slots()
        if len(self.live) >= slots:
            return None
        cell = self.queue.next(slots) if self.left else None
        if cell is None:
            return Searcher.FINISHED if not self.live else None
        self.left -= 1
        self.live[trial_id] = cell
        return {"cell": asdict(cell)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        cell = self.live.pop(trial_id)
        if error or result is None:
            self.queue.lost(cell, "its worker was lost again and again, without any progress")
        else:
            crowded = Cell(**json.loads(result["crowded"])) if result["crowded"] else None
            self.queue.done(cell, Result(result["error"] or None, crowded))

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a copy for restoring a fit, which is never done."""
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the records say what is done."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a sweep goes on from its records."""
