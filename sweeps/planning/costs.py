"""What a task is expected to cost, so that the longest can begin first. Changes no result."""

from __future__ import annotations

from sweeps.config.spec import Sweep
from sweeps.planning.tasks import Task


class Costs:
    """Expected seconds of tasks: their price at first, corrected by the seconds of finished tasks that are alike."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self._spent: dict[tuple[str, ...], tuple[float, float]] = {}  # seconds, and the price of what was done in them

    def knows(self, task: Task) -> bool:
        """Whether a task like this one has finished."""
        return task.alike in self._spent

    def learn(self, task: Task, seconds: float) -> None:
        """A task has finished; one that was resumed counts as if it had been done from its beginning."""
        spent, price = self._spent.get(task.alike, (0.0, 0.0))
        self._spent[task.alike] = spent + seconds, price + task.price(self.sweep)

    def expected(self, task: Task) -> float:
        """Seconds; as long as no task has finished, the price."""
        return task.price(self.sweep) * self._seconds_per_training(task)

    def _seconds_per_training(self, task: Task) -> float:
        """Of tasks like this one, else of all."""
        known = [self._spent[task.alike]] if self.knows(task) else list(self._spent.values())
        spent, price = (sum(column) for column in zip(*known, strict=True)) if known else (0.0, 0.0)
        return spent / price if price else 1.0
