"""The simulator of `benchmarks.schedule` against makespans that can be reckoned by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.schedule import Cluster, InOrder, enlarged, ideal, simulate
from benchmarks.schedule_costs import Measured
from sweeps.planning.task_list import reference_tasks, study_tasks
from tests.sweeps.conftest import Done

TRAINING, REFERENCE, TRIAL = 10.0, 2.0, 3.0


@pytest.fixture
def measured(done: Done) -> Measured:
    """The tiny sweep, whose poisons take no time, trainings 10 s each, references 2 s and trials 3 s."""
    trials = []
    for trial in done.trials:
        rungs = tuple(replace(rung, seconds=1.0) for rung in trial.rungs)
        seconds = {"oracle_seconds": TRAINING, "victim_seconds": TRAINING, "craft_seconds": 0.0}
        seconds |= {"surrogate_seconds": 0.0, "trial_seconds": TRIAL, "evaluation_seconds": 0.0}
        trials.append(replace(trial, **seconds, rungs=rungs))
    return Measured(trials)


def confirmations(done: Done) -> int:
    return sum(trial.stage == "confirmation" for trial in done.trials)


def test_work_is_that_of_all_cells_and_the_chain_runs_through_one_of_each(done: Done, measured: Measured) -> None:
    """5 trainings: corrupted and oracle of 2 scenarios, a second oracle where it is confirmed. 3 proposals (1 drawn at
    random, 2 from its score), then all confirmations."""
    found = ideal(done.sweep, measured)
    assert found.work == 5 * TRAINING + 2 * REFERENCE + (2 * 3 + confirmations(done)) * TRIAL
    assert found.chain == TRAINING + REFERENCE + 3 * TRIAL
    assert found.makespan(1) == found.work
    assert found.makespan(1000) == found.chain


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """How long it takes to begin a task is the simulation's business."""
    monkeypatch.setattr("sweeps.planning.schedule.BEGINNING", 0.0)


@pytest.mark.parametrize("kind", [None, InOrder])
def test_one_worker_is_never_idle(done: Done, measured: Measured, kind: type[InOrder] | None) -> None:
    options = (kind,) if kind else ()
    found = simulate(Cluster(1), done.sweep, measured, *options)
    assert found == pytest.approx(ideal(done.sweep, measured).work)
    whole = simulate(Cluster(1, driver=1.0), done.sweep, measured, *options, whole_studies=True)
    tasks = 2 + 5 + len(reference_tasks(done.sweep)) + len(study_tasks(done.sweep))
    assert whole == pytest.approx(found + tasks)


def test_endless_workers_take_the_longest_chain(done: Done, measured: Measured) -> None:
    best = ideal(done.sweep, measured)
    assert simulate(Cluster(1000), done.sweep, measured) == pytest.approx(best.chain)
    longest = max(
        sum(t.method == method and t.stage != "reference" for t in done.trials) for method in "gd ssd".split()
    )
    whole = simulate(Cluster(1000), done.sweep, measured, whole_studies=True)
    assert whole == pytest.approx(TRAINING + REFERENCE + longest * TRIAL)


def test_the_driver_starts_one_cell_after_the_other(done: Done, measured: Measured) -> None:
    """With 100 s per task all others end while it starts the next: the last to begin is the last to end."""
    taken = simulate(Cluster(1000, driver=100.0), done.sweep, measured)
    tasks = 2 + 5 + len(reference_tasks(done.sweep)) + 2 * 3 + confirmations(done)
    assert taken == pytest.approx(tasks * 100.0 + TRIAL, abs=TRAINING + REFERENCE + 3 * TRIAL)


def test_no_number_of_workers_beats_the_ideal(done: Done, measured: Measured) -> None:
    sweep = enlarged(done.sweep, attacks=3, trials=7)
    best = ideal(sweep, measured)
    taken = [simulate(Cluster(places), sweep, measured) for places in (1, 2, 4, 8, 16)]
    assert all(t >= best.makespan(2**n) - 1e-9 for n, t in enumerate(taken))
    assert taken[1] < 0.6 * taken[0]
    assert taken[0] == pytest.approx(best.work)


def test_a_larger_sweep_has_copies_of_the_attacks(done: Done) -> None:
    sweep = enlarged(done.sweep, attacks=3, trials=7)
    assert len(study_tasks(sweep)) == 3 * len(study_tasks(done.sweep))
    assert sweep.search.trials == 7
    assert enlarged(done.sweep, attacks=1, trials=None) == done.sweep


def test_between_two_fits_all_have_to_end(done: Done, measured: Measured) -> None:
    whole = {"whole_studies": True}
    without = simulate(Cluster(1000), done.sweep, measured, **whole)
    after_each = simulate(Cluster(1000, fit=1), done.sweep, measured, **whole)
    assert after_each == pytest.approx(ideal(done.sweep, measured).work)
    assert without < simulate(Cluster(1000, fit=5), done.sweep, measured, **whole) < after_each
