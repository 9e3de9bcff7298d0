"""The order in which cells are handed out, against made-up results."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.config.spec import Sweep
from sweeps.planning.plan import missing
from sweeps.planning.proposals import known_to, proposal_count
from sweeps.planning.schedule import Schedule
from sweeps.planning.tasks import Cell, Result, members, trials_in
from tests.sweeps.tiny import tiny

ATTACKS = [{"name": "badnets", "label": label, "fraction": 0.1, "size": size} for label, size in (("a", 2), ("b", 3))]
OK = Result()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells that are only imagined take no time: neither does it to begin them."""
    monkeypatch.setattr("sweeps.planning.schedule.BEGINNING", 0.0)


def sweep_of(**changes: Any) -> Sweep:
    seeds = {"tuning": [0, 7], "confirmation": [1, 2]}
    return tiny(**({"attacks": ATTACKS, "seeds": seeds, "search": {"trials": 6, "startup": 2, "batch": 2}} | changes))


class Imagined:
    """Results of cells that were never run: every attack took, and proposal 0 is chosen at every budget."""

    def __init__(self, sweep: Sweep) -> None:
        self.sweep = sweep
        self.trials: set[Cell] = set()
        self.counts: dict[Cell, int] = {}

    def ensembles(self, case: tuple[str, float]) -> list[Cell]:
        seeds = self.sweep.seeds.confirmation[: self.sweep.ensemble.scenarios]
        return [Cell("ensemble", *case, seed=seed) for seed in seeds] if self.sweep.ensemble.members else []

    def open(self, study: Cell) -> list[Cell]:
        seeds, n = self.sweep.seeds, proposal_count(self.sweep.search, {study.method: self.sweep.methods[study.method]})
        tuning = [replace(study, stage="tuning", proposal=p, seed=s) for p in range(n) for s in seeds.tuning]
        left = [cell for cell in tuning if cell not in self.trials]
        if left:
            return [cell for cell in left if known_to(self.sweep.search, cell.proposal) <= left[0].proposal]
        last = [replace(study, stage="confirmation", proposal=0, seed=seed) for seed in seeds.confirmation]
        return [cell for cell in last if cell not in self.trials]

    def count(self, cell: Cell) -> int:
        return self.counts.get(cell, 0)


def scheduled(sweep: Sweep, **options: Any) -> tuple[Schedule, Imagined]:
    imagined = Imagined(sweep)
    return Schedule(sweep, missing(sweep, Path("nowhere")), imagined, **options), imagined


def drive(
    sweep: Sweep, slots: int, choose: Callable[[list[Cell]], Cell] = lambda running: running[0], **options: Any
) -> list[Cell]:
    """Run the schedule to its end on `slots` workers, `choose` saying whose cell ends next; returns all in order.

    At every moment it sees that what a cell needs was done before, and that no trial is handed out twice.
    """
    schedule, imagined = scheduled(sweep, **options)
    order: list[Cell] = []
    running: list[Cell] = []
    done: set[Cell] = set()
    while not schedule.finished:
        while len(running) < slots and (cell := schedule.next(slots)) is not None:
            check(sweep, cell, done)
            assert cell not in order
            order.append(cell)
            running.append(cell)
        ended = choose(running)
        running.remove(ended)
        done.add(ended)
        imagined.trials.add(ended)
        schedule.done(ended, OK)
    assert running == []
    assert schedule.next(slots) is None
    return order


def check(sweep: Sweep, cell: Cell, done: set[Cell]) -> None:
    scenario = {c.role for c in done if c.kind == "training" and (c.attack, c.seed) == (cell.attack, cell.seed)}
    references = {c.seed for c in done if c.kind == "reference" and c.attack == cell.attack}
    if cell.role and cell.role != "poison":
        assert "poison" in scenario
    if cell.kind == "reference":
        assert scenario >= {"poison", "corrupted", "oracle"} | ({"retrain"} if cell.seed in (1, 2) else set())
    if cell.kind in ("study", "ensemble"):
        assert references == {0, 7, 1, 2}
    if cell.kind == "study" and sweep.ensemble.members:
        assert sum(c.member >= 0 for c in done if c.attack == cell.attack) == sweep.ensemble.members


@pytest.mark.parametrize("slots", [1, 2, 3, 5, 8, 40])
@pytest.mark.parametrize("seed", range(6))
def test_everything_is_handed_out_once_and_in_order_whoever_is_fastest(slots: int, seed: int) -> None:
    sweep = sweep_of(ensemble={"members": 8} if seed % 2 else {})
    order = drive(sweep, slots, random.Random(seed).choice)
    whole = [cell for cell in order if cell.kind == "study" and cell.proposal < 0]
    single = [cell for cell in order if cell.proposal >= 0]
    studies = {cell.whole for cell in single}
    assert len(whole) + len(studies) == 4
    assert not studies & set(whole)
    assert len(single) == len(studies) * (6 * 2 + 2)
    assert sum(cell.kind == "reference" for cell in order) == 8
    assert sum(cell.kind == "training" for cell in order) == 2 * (4 * 3 + 2)
    if slots == 1:
        assert single == []


def test_discovery_rates_share_trainings_but_those_that_depend_on_them() -> None:
    order = drive(sweep_of(discovery_rates=[1, 0.5]), 3)
    trained = [(c.attack, c.seed, c.role, c.discovery_rate) for c in order if c.kind == "training"]
    assert len(trained) == len(set(trained)) == 2 * (4 * 3 + 2 + 2)
    assert {rate for *_, role, rate in trained if role == "retrain_discovered"} == {0.5}


def test_discovery_rates_share_members() -> None:
    cells = [Cell("ensemble", "a", rate, seed=1) for rate in (1.0, 0.5)]
    sweep = sweep_of(ensemble={"members": 8})
    assert [cell.member for cell in members(sweep, cells)] == list(range(8))


def test_a_study_begins_while_another_attack_is_still_trained() -> None:
    """No barrier: it waits for its own references only."""
    schedule, _ = scheduled(sweep_of())
    stuck = []
    while (cell := schedule.next(4)) is not None:
        if cell.attack == "b" and cell.kind == "training":
            stuck.append(cell)
            continue
        if cell.kind == "study":
            break
        schedule.done(cell, OK)
    assert cell == Cell("study", "a", 1.0, cell.method)  # type: ignore[union-attr]
    assert len(stuck) == 4  # the poisons of the other attack's four scenarios


def test_what_others_wait_for_comes_first_then_the_longest() -> None:
    order = drive(
        sweep_of(methods=["ssd", {"name": "gd", "fixed": {"lr": 0.1, "epochs": 1, "schedule": "constant"}}]), 1
    )
    levels = ["study" if c.kind == "study" else c.role if c.role == "poison" else c.kind for c in order]
    assert levels == ["poison"] * 8 + ["training"] * 20 + ["reference"] * 8 + ["study"] * 4
    assert [c.method for c in order[-4:]] == ["ssd", "ssd", "gd", "gd"]


def test_what_cells_took_corrects_what_is_expected() -> None:
    schedule, _ = scheduled(sweep_of())
    gd, ssd = (Cell("study", "a", 1.0, name) for name in ("gd", "ssd"))
    costs = schedule.costs
    assert costs.expected(gd) == costs.expected(ssd) == pytest.approx(trials_in(schedule.sweep, gd) * 0.3)
    costs.learn(gd, 100.0)
    assert costs.expected(replace(ssd, attack="b")) == pytest.approx(100)  # nothing else is known of it
    costs.learn(ssd, 300.0)
    assert (costs.expected(gd), costs.expected(replace(ssd, attack="b"))) == (pytest.approx(100), pytest.approx(300))
    one = replace(ssd, proposal=0, stage="tuning", seed=0)
    assert costs.expected(one) == pytest.approx(300 / trials_in(schedule.sweep, ssd))


def test_few_studies_fill_many_slots_and_a_batch_waits_for_the_one_before() -> None:
    schedule, imagined = scheduled(sweep_of(attacks=ATTACKS[:1], methods=["gd"]))
    while (cell := schedule.next(8)) is not None and cell.kind != "study":
        schedule.done(cell, OK)
    first = [cell, *iter(lambda: schedule.next(8), None)]
    assert {(c.proposal, c.seed) for c in first if c} == {(p, s) for p in range(2) for s in (0, 7)}  # drawn at random
    *some, last = [c for c in first if c]
    for each in some:
        imagined.trials.add(each)
        schedule.done(each, OK)
    assert schedule.next(8) is None  # proposals 2 and 3 need the score of the last one
    assert not schedule.finished
    imagined.trials.add(last)
    schedule.done(last, OK)
    second = list(iter(lambda: schedule.next(8), None))
    assert {(c.proposal, c.seed) for c in second} == {(p, s) for p in (2, 3) for s in (0, 7)}


@pytest.mark.parametrize(("seconds", "split"), [(0.19, False), (0.21, True)])
def test_trials_that_take_no_time_are_left_to_one_worker(
    monkeypatch: pytest.MonkeyPatch, seconds: float, split: bool
) -> None:
    monkeypatch.setattr("sweeps.planning.schedule.BEGINNING", 0.05)
    schedule, _ = scheduled(sweep_of(attacks=ATTACKS[:1], methods=["gd"]))
    while (cell := schedule.next(8)) is not None and cell.kind != "study":
        schedule.done(cell, OK)
        study = Cell("study", "a", 1.0, "gd")
        schedule.costs._taken.clear()
        schedule.costs.learn(study, seconds * trials_in(schedule.sweep, study))
    assert cell is not None
    assert (cell.proposal >= 0) == split


def test_whole_studies_can_be_asked_for() -> None:
    assert not [cell for cell in drive(sweep_of(), 40, whole_studies=True) if cell.proposal >= 0]


def test_a_failed_cell_holds_up_only_what_needs_it() -> None:
    schedule, _ = scheduled(sweep_of())
    order = []
    while (cell := schedule.next(1)) is not None:
        order.append(cell)
        schedule.done(cell, Result("went wrong") if (cell.attack, cell.seed, cell.role) == ("a", 1, "oracle") else OK)
    assert schedule.finished
    assert [(o.cell.name, o.error) for o in schedule.failed] == [("a--oracle--seed1", "went wrong")]
    assert {c.attack for c in order if c.kind == "study"} == {"b"}
    assert {c.seed for c in order if c.kind == "reference" and c.attack == "a"} == {0, 7, 2}


def test_a_trial_that_fails_as_a_whole_is_not_tried_again_and_neither_is_its_study() -> None:
    schedule, imagined = scheduled(sweep_of(attacks=ATTACKS[:1]))
    seen: list[Cell] = []
    while (cell := schedule.next(40)) is not None:
        seen.append(cell)
        bad = cell.method == "gd" and (cell.proposal, cell.seed) == (0, 7)
        imagined.trials |= {cell} if not bad else set()
        schedule.done(cell, Result("the store is gone") if bad else OK)
    assert schedule.finished
    assert len(seen) == len(set(seen))
    assert len(schedule.failed) == 1
    assert sum(c.method == "ssd" and c.proposal >= 0 for c in seen) == 6 * 2 + 2


@pytest.mark.parametrize("slots", [1, 40])
def test_what_ran_out_of_memory_is_done_alone_at_the_end_and_then_the_rest(slots: int) -> None:
    schedule, imagined = scheduled(sweep_of(attacks=ATTACKS[:1]))
    order: list[Cell] = []
    big = Cell("study", "a", 1.0, "gd", seed=7, proposal=1, stage="tuning")
    while (cell := schedule.next(slots)) is not None:
        order.append(cell)
        crowded = big if cell in (big, big.whole) and replace(big, alone=True) not in order else None
        imagined.trials |= {replace(cell, alone=False)} if not crowded else set()
        schedule.done(cell, Result(None, crowded))
    assert schedule.finished
    assert [cell for cell in order if cell.alone] == [replace(big, alone=True)]
    alone = order.index(replace(big, alone=True))
    assert not [cell for cell in order[:alone] if cell.method == "gd" and cell.proposal > 1]
    if slots == 1:
        assert [cell.method for cell in order if cell.kind == "study" and cell.proposal < 0] == ["gd", "ssd", "gd"]
        assert order[-1] == big.whole
    else:
        assert sum(cell.method == "gd" and cell.proposal >= 0 and not cell.alone for cell in order) == 6 * 2 + 2


def test_references_that_ran_out_of_memory_are_done_alone_too() -> None:
    schedule, _ = scheduled(sweep_of(attacks=ATTACKS[:1]))
    order = []
    while (cell := schedule.next(1)) is not None:
        order.append(cell)
        schedule.done(cell, Result(None, cell) if cell.role == "oracle" and not cell.alone else OK)
    assert sum(cell.alone for cell in order) == 4
    assert sum(cell.kind == "study" for cell in order) == 2


def test_a_lost_cell_is_begun_again_only_while_it_gets_ahead() -> None:
    schedule, imagined = scheduled(sweep_of(attacks=ATTACKS[:1], methods=["gd"]))
    while (cell := schedule.next(1)) is not None and cell.kind != "study":
        schedule.done(cell, OK)
    for count in (0, 3, 5):
        assert cell is not None
        imagined.counts[cell] = count
        schedule.lost(cell, "lost")
        assert schedule.failed == []
        cell = schedule.next(1)
    assert cell is not None
    schedule.lost(cell, "lost")
    assert [(o.cell, o.error) for o in schedule.failed] == [(cell, "lost")]
    assert schedule.finished


def test_a_single_trial_that_is_lost_is_given_up_with_its_study() -> None:
    schedule, imagined = scheduled(sweep_of(attacks=ATTACKS[:1]))
    seen: list[Cell] = []
    while (cell := schedule.next(40)) is not None:
        seen.append(cell)
        if (cell.method, cell.proposal, cell.seed) == ("gd", 1, 0):
            schedule.lost(cell, "lost")
        else:
            imagined.trials.add(cell)
            schedule.done(cell, OK)
    assert schedule.finished
    assert len(seen) == len(set(seen))
    assert [o.error for o in schedule.failed] == ["lost"]
    assert sum(c.method == "ssd" and c.proposal >= 0 for c in seen) == 6 * 2 + 2


def test_nothing_is_handed_out_once_it_is_stopped() -> None:
    schedule, _ = scheduled(sweep_of())
    cell = schedule.next(4)
    assert cell is not None
    schedule.stopped = True
    assert schedule.next(4) is None
    assert not schedule.finished
    schedule.done(cell, OK)
    assert schedule.finished
