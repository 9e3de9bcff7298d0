"""What Tune is told by the schedule, and the schedule by Tune."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sweeps.planning.tasks import CraftPoison, Outcome, RunStudy, Task, to_wire
from sweeps.schema.stages import Stage
from sweeps.storage.errors import StorageError

pytestmark = pytest.mark.ray
TASKS = [CraftPoison("a", seed) for seed in range(5)]


class Told:
    """A queue of the tasks that notes what it is told."""

    def __init__(self) -> None:
        self.left, self.told = list(TASKS), list[Any]()

    finished = False

    def next(self, slots: int) -> Task | None:
        return self.left.pop(0) if self.left else None

    def done(self, task: Task, outcome: Outcome) -> None:
        self.told.append((task, outcome))

    def lost(self, task: Task, error: str) -> None:
        self.told.append((task, error))

    def leave(self, task: Task) -> None:
        self.told.append((task, "left"))


def tune_queue(queue: Any, slots: tuple[int, int] = (4, 4), most: int = 100) -> Any:
    from sweeps.execution.tune_queue import TuneQueue

    return TuneQueue(queue, lambda: slots, to_wire, most=most)


def last_report(**values: Any) -> dict[str, Any]:
    return {"finished": True, "error": "", "too_large": ""} | values


def test_results_reach_the_queue_before_it_is_asked_again() -> None:
    queue = Told()
    made = tune_queue(queue)
    assert [made.suggest(str(n)) for n in range(3)] == [to_wire(task) for task in TASKS[:3]]
    big = RunStudy("a", 1.0, "gd").trial(Stage.TUNING, 2, 1)
    made.on_trial_complete("1", last_report(error="Traceback"))
    made.on_trial_complete("0", last_report(too_large=json.dumps(to_wire(big))))
    made.on_trial_complete("2", None, error=True)
    assert queue.told == []
    made.suggest("3")
    assert queue.told[:2] == [(TASKS[1], Outcome("Traceback")), (TASKS[0], Outcome(None, big))]
    assert queue.told[2][0] == TASKS[2] and "lost again and again" in queue.told[2][1]


def test_no_more_are_under_way_than_there_is_room_for() -> None:
    made = tune_queue(Told(), slots=(2, 3))
    assert [made.suggest(str(n)) is None for n in range(4)] == [False, False, False, True]
    made.on_trial_complete("0", last_report())
    assert made.suggest("4") == to_wire(TASKS[3])


def test_the_end_comes_when_all_that_was_handed_out_has_ended() -> None:
    from ray.tune.search import Searcher

    queue = Told()
    made = tune_queue(queue, most=2)
    assert made.suggest("0") and made.suggest("1")
    assert made.suggest("2") is None
    made.on_trial_complete("0", last_report())
    assert made.suggest("2") is None
    made.on_trial_complete("1", last_report())
    assert made.suggest("2") == Searcher.FINISHED
    assert [task for task, _ in queue.told] == TASKS[:2]
    assert queue.left == TASKS[2:]


def test_trouble_with_the_storage_is_no_trouble_of_a_task(monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Told()
    made = tune_queue(queue)
    made.suggest("0")

    def fail(task: Task, outcome: Outcome) -> None:
        raise StorageError("the bucket is gone")

    monkeypatch.setattr(queue, "done", fail)
    made.on_trial_complete("0", last_report())  # Tune would begin the task again and again
    with pytest.raises(StorageError):
        made.suggest("1")


def test_a_study_that_is_ended_early_is_left() -> None:
    queue = Told()
    made = tune_queue(queue)
    for number in range(3):
        made.suggest(str(number))
    made.on_trial_complete("0", {"score": 0.5, "finished": False})
    made.on_trial_complete("1", {})  # before its first report
    made.on_trial_complete("2")  # before it began
    made.suggest("3")
    assert queue.told == [(task, "left") for task in TASKS[:3]]
