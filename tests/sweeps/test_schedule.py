"""The order in which tasks are handed out, against made-up results."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from sweeps.config.spec import Sweep
from sweeps.planning.missing import missing
from sweeps.planning.proposals import known_to
from sweeps.planning.schedule import Schedule
from sweeps.planning.tasks import (
    CraftPoison,
    MeasureEnsemble,
    MeasureReferences,
    Outcome,
    RunStudy,
    RunTrial,
    Task,
    Threat,
    TrainMember,
    TrainModel,
)
from sweeps.schema.stages import Stage
from tests.sweeps.tiny import tiny

ATTACKS = [{"name": "badnets", "label": label, "fraction": 0.1, "size": size} for label, size in (("a", 2), ("b", 3))]
OK = Outcome()
T = TypeVar("T", bound=Task)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imagined tasks end at once, so they begin at once, too."""
    monkeypatch.setattr("sweeps.planning.schedule.BEGINNING", 0.0)


def sweep_of(**changes: Any) -> Sweep:
    seeds = {"tuning": [0, 7], "confirmation": [1, 2]}
    return tiny(**({"attacks": ATTACKS, "seeds": seeds, "search": {"trials": 6, "startup": 2, "batch": 2}} | changes))


class Imagined:
    """Results of tasks that were never run: every attack took, and proposal 0 is chosen at every budget."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.trials: set[Task] = set()
        self.counts: dict[Task, int] = {}

    def ensembles(self, threat: Threat) -> list[MeasureEnsemble]:
        seeds = self.sweep.seeds.confirmation[: self.sweep.ensemble.scenarios]
        return [MeasureEnsemble(*threat, seed) for seed in seeds] if self.sweep.ensemble.members else []

    def open(self, study: RunStudy) -> list[RunTrial]:
        seeds, n = self.sweep.seeds, study.proposals(self.sweep)
        tuning = [study.trial(Stage.TUNING, p, s) for p in range(n) for s in seeds.tuning]
        left = [trial for trial in tuning if trial not in self.trials]
        if left:
            return [trial for trial in left if known_to(self.sweep.search, trial.proposal) <= left[0].proposal]
        last = [study.trial(Stage.CONFIRMATION, 0, seed) for seed in seeds.confirmation]
        return [trial for trial in last if trial not in self.trials]

    def count(self, task: Task) -> int:
        return self.counts.get(task, 0)


def scheduled(sweep: Sweep, **options: Any) -> tuple[Schedule, Imagined]:
    imagined = Imagined(sweep)
    return Schedule(sweep, missing(sweep, Path("nowhere")), imagined, **options), imagined


def drive(
    sweep: Sweep, slots: int, choose: Callable[[list[Task]], Task] = lambda running: running[0], **options: Any
) -> list[Task]:
    """Run the schedule to its end on `slots` workers, `choose` saying whose task ends next; returns all in order.

    At every moment it sees that what a task needs was done before, and that no trial is handed out twice.
    """
    schedule, imagined = scheduled(sweep, **options)
    order: list[Task] = []
    running: list[Task] = []
    done: set[Task] = set()
    while not schedule.finished:
        while len(running) < slots and (task := schedule.next(slots)) is not None:
            check(sweep, task, done)
            assert task not in order
            order.append(task)
            running.append(task)
        ended = choose(running)
        running.remove(ended)
        done.add(ended)
        imagined.trials.add(ended)
        schedule.done(ended, OK)
    assert running == []
    assert schedule.next(slots) is None
    return order


def only(kind: type[T], tasks: Iterable[Task | None]) -> list[T]:
    return [task for task in tasks if isinstance(task, kind)]


def up_to_the_first_study(schedule: Schedule, slots: int) -> Task:
    while (task := schedule.next(slots)) is not None and not isinstance(task, RunStudy | RunTrial):
        schedule.done(task, OK)
    assert task is not None
    return task


def check(sweep: Sweep, task: Task, done: set[Task]) -> None:
    assert set(task.needs(sweep)) <= done
    same = [other for other in done if other.attack == task.attack]
    if isinstance(task, MeasureReferences):
        trained = {other.role for other in only(TrainModel, same) if other.seed == task.seed}
        assert task.seed in {other.seed for other in only(CraftPoison, same)}
        assert trained >= {"corrupted", "oracle"} | ({"retrain"} if task.seed in (1, 2) else set())
    if isinstance(task, RunStudy | RunTrial | TrainMember | MeasureEnsemble):
        assert {other.seed for other in only(MeasureReferences, same)} == {0, 7, 1, 2}
    if isinstance(task, RunStudy | RunTrial):
        assert len(only(TrainMember, same)) == sweep.ensemble.members


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 8, 40])
@pytest.mark.parametrize("seed", range(6))
def test_everything_is_handed_out_once_and_in_order_whoever_is_fastest(slots: int, seed: int) -> None:
    sweep = sweep_of(ensemble={"members": 8} if seed % 2 else {})
    order = drive(sweep, slots, random.Random(seed).choice)
    whole, single = only(RunStudy, order), only(RunTrial, order)
    studies = {trial.study for trial in single}
    assert len(whole) + len(studies) == 4
    assert not studies & set(whole)
    assert len(single) == len(studies) * (6 * 2 + 2)
    assert len(only(MeasureReferences, order)) == 8
    assert len(only(CraftPoison, order)) == 2 * 4
    assert len(only(TrainModel, order)) == 2 * (4 * 2 + 2)
    if slots == 1:
        assert single == []


def test_discovery_rates_share_trainings_but_those_that_depend_on_them() -> None:
    order = drive(sweep_of(discovery_rates=[1, 0.5]), 3)
    trained = only(TrainModel, order)
    assert len(trained) == len(set(trained)) == 2 * (4 * 2 + 2 + 2)
    assert len(only(CraftPoison, order)) == 2 * 4
    assert {task.discovery_rate for task in trained if task.role == "retrain_discovered"} == {0.5}


def test_discovery_rates_share_members() -> None:
    order = drive(sweep_of(discovery_rates=[1, 0.5], ensemble={"members": 8}, attacks=ATTACKS[:1]), 3)
    assert sorted(task.member for task in only(TrainMember, order)) == list(range(8))
    assert sorted(task.discovery_rate for task in only(MeasureEnsemble, order)) == [0.5, 1]


def test_a_study_begins_while_another_attack_is_still_trained() -> None:
    """No barrier: it waits for its own references only."""
    schedule, _ = scheduled(sweep_of())
    stuck = []
    while (task := schedule.next(4)) is not None:
        if isinstance(task, CraftPoison) and task.attack == "b":
            stuck.append(task)
            continue
        if isinstance(task, RunStudy):
            break
        schedule.done(task, OK)
    assert task is not None and task.attack == "a"
    assert len(stuck) == 4  # the poisons of the other attack's four scenarios


def test_what_others_wait_for_comes_first_then_the_longest() -> None:
    order = drive(
        sweep_of(methods=["ssd", {"name": "gd", "fixed": {"lr": 0.1, "epochs": 1, "schedule": "constant"}}]), 1
    )
    kinds = [type(task) for task in order]
    assert kinds == [CraftPoison] * 8 + [TrainModel] * 20 + [MeasureReferences] * 8 + [RunStudy] * 4
    assert [study.method for study in only(RunStudy, order)] == ["ssd", "ssd", "gd", "gd"]


def test_what_tasks_cost_corrects_what_is_expected() -> None:
    schedule, _ = scheduled(sweep_of())
    gd, ssd = (RunStudy("a", 1.0, name) for name in ("gd", "ssd"))
    costs = schedule.costs
    assert costs.expected(gd) == costs.expected(ssd) == pytest.approx(gd.most_trials(schedule.sweep) * 0.3)
    costs.learn(gd, 100.0)
    assert costs.expected(replace(ssd, attack="b")) == pytest.approx(100)  # nothing else is known of it
    costs.learn(ssd, 300.0)
    assert (costs.expected(gd), costs.expected(replace(ssd, attack="b"))) == (pytest.approx(100), pytest.approx(300))
    one = ssd.trial(Stage.TUNING, 0, 0)
    assert costs.expected(one) == pytest.approx(300 / ssd.most_trials(schedule.sweep))


def test_few_studies_fill_many_slots_and_a_batch_waits_for_the_one_before() -> None:
    schedule, imagined = scheduled(sweep_of(attacks=ATTACKS[:1], methods=["gd"]))
    first = only(RunTrial, [up_to_the_first_study(schedule, 8), *iter(lambda: schedule.next(8), None)])
    assert {(t.proposal, t.seed) for t in first} == {(p, s) for p in range(2) for s in (0, 7)}  # drawn at random
    *some, last = first
    for each in some:
        imagined.trials.add(each)
        schedule.done(each, OK)
    assert schedule.next(8) is None  # proposals 2 and 3 need the score of the last one
    assert not schedule.finished
    imagined.trials.add(last)
    schedule.done(last, OK)
    second = only(RunTrial, iter(lambda: schedule.next(8), None))
    assert {(t.proposal, t.seed) for t in second} == {(p, s) for p in (2, 3) for s in (0, 7)}


@pytest.mark.parametrize(("seconds", "split"), [(0.19, False), (0.21, True)])
def test_trials_that_take_no_time_are_left_to_one_worker(
    monkeypatch: pytest.MonkeyPatch, seconds: float, split: bool
) -> None:
    monkeypatch.setattr("sweeps.planning.schedule.BEGINNING", 0.05)
    schedule, _ = scheduled(sweep_of(attacks=ATTACKS[:1], methods=["gd"]))
    study = RunStudy("a", 1.0, "gd")
    schedule.costs.learn(study, seconds * study.most_trials(schedule.sweep))
    assert isinstance(up_to_the_first_study(schedule, 8), RunTrial) == split


def test_whole_studies_can_be_asked_for() -> None:
    assert not only(RunTrial, drive(sweep_of(), 40, whole_studies=True))


def test_a_failed_task_holds_up_only_what_needs_it() -> None:
    schedule, _ = scheduled(sweep_of())
    order = []
    while (task := schedule.next(1)) is not None:
        order.append(task)
        schedule.done(task, Outcome("went wrong") if task == TrainModel("a", 1, "oracle") else OK)
    assert schedule.finished
    assert [(o.task.name, o.error) for o in schedule.failed] == [("a--oracle--seed1", "went wrong")]
    assert {study.attack for study in only(RunStudy, order)} == {"b"}
    assert {task.seed for task in only(MeasureReferences, order) if task.attack == "a"} == {0, 7, 2}


def test_a_trial_that_fails_as_a_whole_is_not_tried_again_and_neither_is_its_study() -> None:
    schedule, imagined = scheduled(sweep_of(attacks=ATTACKS[:1]))
    seen: list[Task] = []
    while (task := schedule.next(40)) is not None:
        seen.append(task)
        bad = task == RunStudy("a", 1.0, "gd").trial(Stage.TUNING, 0, 7)
        imagined.trials |= {task} if not bad else set()
        schedule.done(task, Outcome("the store is gone") if bad else OK)
    assert schedule.finished
    assert len(seen) == len(set(seen))
    assert len(schedule.failed) == 1
    assert sum(trial.method == "ssd" for trial in only(RunTrial, seen)) == 6 * 2 + 2


@pytest.mark.parametrize("slots", [1, 40])
def test_a_study_that_is_ended_early_is_left_whole_or_in_parts(slots: int) -> None:
    schedule, imagined = scheduled(sweep_of(attacks=ATTACKS[:1]))
    ended, seen = RunStudy("a", 1.0, "gd"), list[Task]()
    while (task := schedule.next(slots)) is not None:
        seen.append(task)
        if task in (ended, ended.trial(Stage.TUNING, 0, 7)):
            schedule.leave(task)
            continue
        imagined.trials |= {task} if isinstance(task, RunTrial) else set()
        schedule.done(task, OK)
    assert schedule.finished and schedule.failed == []
    assert len(seen) == len(set(seen))
    whole = [study.method for study in only(RunStudy, seen)]
    parts = [trial.method for trial in only(RunTrial, seen)]
    assert (sorted(whole) == ["gd", "ssd"] and not parts) if slots == 1 else parts.count("ssd") == 6 * 2 + 2
    assert parts.count("gd") < 6 * 2


@pytest.mark.parametrize("slots", [1, 40])
def test_what_ran_out_of_memory_is_done_alone_at_the_end_and_then_the_rest(slots: int) -> None:
    schedule, imagined = scheduled(sweep_of(attacks=ATTACKS[:1]))
    order: list[Task] = []
    study = RunStudy("a", 1.0, "gd")
    big = study.trial(Stage.TUNING, 1, 7)
    while (task := schedule.next(slots)) is not None:
        order.append(task)
        too_large = task in (big, study) and not any(task.whole_gpu for task in order)
        imagined.trials |= {task} if not too_large else set()
        schedule.done(task, Outcome(None, big if too_large else None))
    assert schedule.finished
    assert [task for task in order if task.whole_gpu] == [big]
    alone = [task.whole_gpu for task in order].index(True)
    assert not [trial for trial in only(RunTrial, order[:alone]) if trial.method == "gd" and trial.proposal > 1]
    if slots == 1:
        assert [study.method for study in only(RunStudy, order)] == ["gd", "ssd", "gd"]
        assert order[-1] == study
    else:
        assert sum(trial.method == "gd" and not trial.whole_gpu for trial in only(RunTrial, order)) == 6 * 2 + 2


def test_references_that_ran_out_of_memory_are_done_alone_too() -> None:
    schedule, _ = scheduled(sweep_of(attacks=ATTACKS[:1]))
    order = []
    while (task := schedule.next(1)) is not None:
        order.append(task)
        oracle = isinstance(task, TrainModel) and task.role == "oracle"
        schedule.done(task, Outcome(None, task) if oracle and not task.whole_gpu else OK)
    assert sum(task.whole_gpu for task in order) == 4
    assert len(only(RunStudy, order)) == 2


def test_a_lost_task_begins_again_only_while_it_gets_ahead() -> None:
    schedule, imagined = scheduled(sweep_of(attacks=ATTACKS[:1], methods=["gd"]))
    task: Task | None = up_to_the_first_study(schedule, 1)
    for count in (0, 3, 5):
        assert task is not None
        imagined.counts[task] = count
        schedule.lost(task, "lost")
        assert schedule.failed == []
        task = schedule.next(1)
    assert task is not None
    schedule.lost(task, "lost")
    assert [(o.task, o.error) for o in schedule.failed] == [(task, "lost")]
    assert schedule.finished


def test_a_single_trial_that_is_lost_is_given_up_with_its_study() -> None:
    schedule, imagined = scheduled(sweep_of(attacks=ATTACKS[:1]))
    seen: list[Task] = []
    while (task := schedule.next(40)) is not None:
        seen.append(task)
        if task == RunStudy("a", 1.0, "gd").trial(Stage.TUNING, 1, 0):
            schedule.lost(task, "lost")
        else:
            imagined.trials.add(task)
            schedule.done(task, OK)
    assert schedule.finished
    assert len(seen) == len(set(seen))
    assert [o.error for o in schedule.failed] == ["lost"]
    assert sum(trial.method == "ssd" for trial in only(RunTrial, seen)) == 6 * 2 + 2


def test_nothing_is_handed_out_once_it_is_stopped() -> None:
    schedule, _ = scheduled(sweep_of())
    task = schedule.next(4)
    assert task is not None
    schedule.stopped = True
    assert schedule.next(4) is None
    assert not schedule.finished
    schedule.done(task, OK)
    assert schedule.finished
