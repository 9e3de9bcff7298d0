"""Trials on real (small) scenarios: what they share, how they fail, what identifies them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from sweeps.config.sections import Resources
from sweeps.execution.run_task import Worker, run_task
from sweeps.planning.study import WORST, load_study
from sweeps.planning.task_list import reference_tasks, study_tasks
from sweeps.storage.record_log import read_trials
from sweeps.trials.references import read_reference
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from sweeps.trials.trial import run_trial, trial_id
from tests.sweeps.conftest import Done
from tests.sweeps.tiny import TIMES, request_of, run_all, run_fresh, science, tiny
from unlearn_core.registry import UNLEARNERS
from unlearn_core.types import Task, Update

LOUD = {"name": "gaussian", "label": "loud", "fraction": 0.1, "epsilon": 3.0}


def artifacts(out: Path, kind: str) -> int:
    return len(list((out / "store" / kind).iterdir()))


@dataclass(frozen=True, kw_only=True)
class Broken:
    """Does a step, then raises."""

    anytime: ClassVar[bool] = True
    lr: float = 0.1

    def updates(self, task: Task) -> Iterator[Update]:
        yield Update("step", 1)
        raise RuntimeError("out of luck")

    @classmethod
    def search_space(cls) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, kw_only=True)
class Explosive(Broken):
    """Leaves numbers that are none."""

    def updates(self, task: Task) -> Iterator[Update]:
        yield Update("step", 1)
        with torch.no_grad():
            next(task.model.parameters()).fill_(float("nan"))
        yield Update("step", 2)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(UNLEARNERS._items, "broken", Broken)
    monkeypatch.setitem(UNLEARNERS._items, "explosive", Explosive)


def test_the_same_sweep_elsewhere_gives_the_same_numbers(done: Done, tmp_path: Path) -> None:
    assert science(run_fresh(done.sweep, tmp_path)) == science(done.trials)


def test_everything_is_compared_but_times() -> None:
    assert {"removal", "score", "trial_id", "settings", "primary_value", "steps", "flops"}.isdisjoint(TIMES)


def test_a_name_or_resources_change_no_trial(done: Done) -> None:
    other = replace(done.sweep, name="other", resources=Resources(cpus=3))
    assert (
        len({trial_id(ScenarioCache(sweep, RunEnvironment(done.out)), request_of()) for sweep in (done.sweep, other)})
        == 1
    )


def test_whatever_determines_a_trial_is_in_its_id(done: Done) -> None:
    requests: list[dict[str, Any]] = [
        {}, {"seed": 2}, {"discovery_rate": 0.5}, {"stage": "confirmation"}, {"budgets": (0.1, 0.2)}, {"proposal": 0},
        {"settings": UNLEARNERS.get("gd")(lr=0.5)}, {"method": "ga", "settings": UNLEARNERS.get("ga")()},
    ]  # fmt: skip
    sweeps: list[dict[str, Any]] = [
        {"recipe": {"epochs": 6}}, {"rows": {"train_rows": 210, "held_out_rows": 120}}, {"model": "mlp"},
        {"attacks": [{"name": "badnets", "fraction": 0.1, "size": 3}]}, {"dataset": {"name": "digits", "size": 9}},
    ]  # fmt: skip
    work = ScenarioCache(done.sweep, RunEnvironment(done.out))
    ids = [trial_id(work, request_of(**change)) for change in requests]
    ids += [trial_id(ScenarioCache(tiny(**change), RunEnvironment(done.out)), request_of()) for change in sweeps]
    assert len(set(ids)) == len(ids) == len(requests) + len(sweeps)


def test_attacks_that_take_the_same_rows_share_their_oracles(tmp_path: Path) -> None:
    quiet = LOUD | {"label": "quiet", "epsilon": 0.5}
    sweep = tiny(attacks=[LOUD, quiet], methods=["gd"])
    work = ScenarioCache(sweep, RunEnvironment(tmp_path))
    for task in reference_tasks(sweep):
        run_task(task, Worker(work, tmp_path / "tiny"))
    assert artifacts(tmp_path, "poison") == 2 * 2  # attacks, seeds
    assert artifacts(tmp_path, "model") == 2 * 2 + 2 + 1  # corrupted by attack and seed; oracles by seed; a second one
    oracles = {(t.attack, t.seed): t.oracle_flops for t in read_trials(tmp_path / "tiny")}
    assert len(set(oracles.values())) == 1
    assert len(oracles) == 4


def test_attacks_that_take_other_rows_do_not(tmp_path: Path) -> None:
    sweep = tiny(attacks=[LOUD, LOUD | {"label": "more", "fraction": 0.2}], methods=["gd"], seeds={"tuning": [0]})
    work = ScenarioCache(sweep, RunEnvironment(tmp_path))
    for attack in sweep.attacks:
        work.bench(attack, 0, "validation")
    assert artifacts(tmp_path, "model") == 4


def test_discovery_rates_differ_in_what_is_forgotten(tmp_path: Path) -> None:
    sweep = tiny(discovery_rates=[1, 0.5], methods=["gd"], search={"trials": 1})
    trials = run_fresh(sweep, tmp_path)
    assert {(t.stage, t.discovery_rate) for t in trials} == {
        (stage, rate) for stage in ("reference", "tuning", "confirmation") for rate in (1, 0.5)
    }
    work = ScenarioCache(sweep, RunEnvironment(tmp_path))
    bench = work.bench("badnets", 0, "validation")
    sizes = {rate: tuple(map(len, work.split(bench, rate))) for rate in (1.0, 0.5)}
    assert sizes == {1.0: (180, 20), 0.5: (190, 10)}
    assert len({t.trial_id for t in trials}) == len(trials) == 2 * (7 + 2) + 1


@pytest.mark.slow
def test_a_damaged_model_is_trained_again_to_the_same_weights(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = science(run_fresh(tiny(), tmp_path))
    for path in (tmp_path / "store").glob("*/*/tensors.safetensors"):
        path.write_bytes(path.read_bytes()[:-3])
    assert run_all(ScenarioCache(tiny(), RunEnvironment(tmp_path)), tmp_path / "again") == len(before)
    assert "is damaged (checksum differs); it is made again" in caplog.text
    assert science(read_trials(tmp_path / "again")) == before


@pytest.mark.usefixtures("broken")
def test_a_method_that_raises_is_a_record_and_the_study_goes_on(tmp_path: Path) -> None:
    sweep = tiny(methods=["broken", "explosive", "gd"], search={"trials": 1})
    trials = {(t.method, t.stage): t for t in run_fresh(sweep, tmp_path)}
    for stage in ("tuning", "confirmation"):
        failed, diverged, fine = (trials[name, stage] for name in ("broken", "explosive", "gd"))
        assert failed.rungs == ()
        assert failed.error.startswith("Traceback")
        assert "out of luck" in failed.error
        assert failed.corrupted_value == fine.corrupted_value
        assert [rung.status for rung in diverged.rungs] == ["diverged"] * len(diverged.rungs)
        assert {rung.score for rung in diverged.rungs} == {rung.removal for rung in diverged.rungs} == {None}
        assert (diverged.error, fine.error) == (None, None)
    for task in study_tasks(sweep):
        study = load_study(sweep, tmp_path / "tiny", task)
        assert study.finished()
        assert (study.scores(0) == [WORST, WORST]) is (task.method != "gd")


def test_an_attack_that_does_not_take_is_recorded_and_not_searched(tmp_path: Path) -> None:
    sweep = tiny(attacks=[{"name": "badnets", "fraction": 0.005, "size": 1}])
    trials = run_fresh(sweep, tmp_path)
    assert {(t.stage, t.attack_took) for t in trials} == {("reference", False)}
    assert {rung.removal for t in trials for rung in t.rungs} == {None}
    assert run_all(ScenarioCache(sweep, RunEnvironment(tmp_path)), tmp_path / "tiny") == 0


def test_trials_name_their_budgets_and_reach_no_further(done: Done) -> None:
    for trial in done.trials:
        budgets = [rung.budget for rung in trial.rungs]
        if trial.stage == "tuning" or trial.method == "retrain_at_budget":
            assert budgets == [0.1, 0.3]
        if trial.stage == "confirmation":
            assert budgets[-1] == max(json.loads(trial.chosen_for))
            assert set(json.loads(trial.chosen_for)) <= set(budgets)


def test_choices_are_confirmed_with_the_settings_that_were_tuned(done: Done) -> None:
    tuned = {(t.study, t.proposal): t.settings for t in done.trials if t.stage == "tuning"}
    confirmed = [t for t in done.trials if t.stage == "confirmation"]
    assert confirmed
    for trial in confirmed:
        assert trial.settings == tuned[trial.study, trial.proposal]
    for study in ("badnets--gd", "badnets--ssd"):
        chosen = [budget for t in confirmed if t.study == study for budget in json.loads(t.chosen_for)]
        assert sorted(chosen) == [0.1, 0.3]


def test_a_reference_read_back_is_the_one_measured(done: Done) -> None:
    trials = [t for t in done.trials if t.study == "badnets--references--seed1"]
    reference = read_reference(trials)
    work = ScenarioCache(done.sweep, RunEnvironment(done.out))
    settings = UNLEARNERS.get("retrain_at_budget")()
    request = request_of(stage="confirmation", method="retrain_at_budget", settings=settings, budgets=(0.1, 0.3))
    again = run_trial(work, request, reference)
    (first,) = (t for t in trials if t.method == "retrain_at_budget")
    assert science([again])[first.trial_id]["rungs"] == science([first])[first.trial_id]["rungs"]


def test_best_mode_is_one_study_over_all_methods(tmp_path: Path) -> None:
    sweep = tiny(search={"mode": "best", "trials": 4, "startup": 1})
    trials = run_fresh(sweep, tmp_path)
    tuned = [t for t in trials if t.stage == "tuning"]
    assert [t.study for t in tuned] == ["badnets--best"] * 4
    assert [t.method for t in tuned][:2] == ["gd", "ssd"]


def test_relearning_is_measured_on_test_rows_alone(done: Done) -> None:
    """It costs training, so not at every rung of tuning; and the second oracle's value is there to compare with."""
    told = {(t.held_out, "relearn_passes" in rung.metrics) for t in done.trials for rung in t.rungs}
    assert told == {("validation", False), ("test", True)}
    (second,) = (t for t in done.trials if t.method == "retrain")
    assert second.rungs[0].metrics["relearn_passes"] > 0
    assert 0 < second.rungs[0].metrics["agreement_test"] <= 1
