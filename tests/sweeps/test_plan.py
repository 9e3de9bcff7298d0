"""What is missing, in which order, and what it will cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.execution.run_task import Worker, run_task
from sweeps.planning.missing import missing
from sweeps.planning.plan import check_data, check_scenarios, estimate
from sweeps.planning.task_list import reference_tasks
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.sweeps.conftest import Done
from tests.sweeps.tiny import tiny
from unlearn_core.checks import InputError


def test_everything_is_missing_at_first_and_nothing_at_last(done: Done, tmp_path: Path) -> None:
    left = missing(done.sweep, tmp_path)
    assert (len(left.references), len(left.studies)) == (2, 2)
    assert missing(done.sweep, done.dir) == ([], [], [])


def test_longest_studies_first() -> None:
    methods = [{"name": "gd", "fixed": {"lr": 0.1, "epochs": 1, "schedule": "constant"}}, "ssd"]
    left = missing(tiny(methods=methods), Path("nowhere"))
    assert [task.method for task in left.studies] == ["ssd", "gd"]


def test_estimate_counts_what_is_missing(done: Done) -> None:
    work = ScenarioCache(done.sweep, RunEnvironment(done.out))
    whole, nothing = estimate(work, missing(done.sweep, Path("nowhere"))), estimate(work, missing(done.sweep, done.dir))
    assert (whole.scenarios, whole.trainings, whole.trials) == (2, 5, 10)
    assert (nothing.trainings, nothing.trials, nothing.flops) == (0, 0, 0)
    trained = max(trial.oracle_flops for trial in done.trials)
    spent = sum(t.rungs[-1].flops for t in done.trials if t.proposal is not None and t.rungs)
    assert whole.flops >= 5 * trained * 0.9 + spent
    assert whole.hours(2) == whole.hours(1) / 2 > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"rows": {"train_rows": 12}, "attacks": [{"name": "gaussian", "fraction": 0.5}]},
            "poison fraction leaves no clean",
        ),
        ({"rows": {"train_rows": 10**6}}, r"train_rows must lie in \[10, 1200\]"),
        ({"rows": {"train_rows": 3}}, r"train_rows must lie in \[10, 1200\]"),
        ({"attacks": [{"name": "badnets", "size": 9}]}, "does not fit into an image of 8 x 8"),
        ({"attacks": [{"name": "badnets", "target": 10}]}, "target must be a class below 10"),
        ({"dataset": {"name": "npz", "path": "missing.npz"}}, "there is no such file"),
        ({"dataset": "cifar10"}, "cifar10 needs a folder for its files"),
    ],
)
def test_impossible_scenarios_are_refused(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_scenarios(ScenarioCache(tiny(**changes), RunEnvironment(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_possible_scenarios_pass_without_training_anything(done: Done, tmp_path: Path) -> None:
    check_scenarios(ScenarioCache(done.sweep, RunEnvironment(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_records_of_other_data_are_not_mixed_in(tmp_path: Path) -> None:
    sweep = tiny()
    work = ScenarioCache(sweep, RunEnvironment(tmp_path))
    folder = tmp_path / sweep.name
    run_task(reference_tasks(sweep)[0], Worker(work, folder))
    check_data(work, folder)
    work.dataset = replace(work.dataset, digest="the files changed")
    with pytest.raises(InputError, match="holds trials on other data than data set 'digits' now gives"):
        check_data(work, folder)
