"""Ensembles in a sweep: trained once, shared by all methods, resumed like everything else."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
import torch
from torch import nn

from sweeps.commands.driver import Driver
from sweeps.commands.run import main
from sweeps.config.spec import Sweep
from sweeps.execution.executors import InlineExecutor
from sweeps.execution.run_task import Worker, run_task
from sweeps.planning.missing import missing
from sweeps.planning.plan import estimate
from sweeps.planning.study import load_study
from sweeps.planning.task_list import ensemble_tasks, reference_tasks, study_tasks
from sweeps.planning.tasks import (
    CraftPoison,
    MeasureEnsemble,
    MeasureReferences,
    RunStudy,
    Task,
    TrainMember,
    TrainModel,
)
from sweeps.storage.record_log import Trial, read_trials
from sweeps.trials.ensemble import oracle_outputs, run_ensemble_trial
from sweeps.trials.references import read_reference
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from sweeps.trials.trial import trial_id
from tests.sweeps.tiny import lines, request_of, science, tiny, write_config
from unlearn_core import types
from unlearn_core.checks import InputError
from unlearn_core.metrics import columns
from unlearn_core.registry import UNLEARNERS
from unlearn_core.scenarios.scenario import Scenario
from unlearn_core.types import Update

MEMBERS = 8
NOISE = {"name": "gaussian", "fraction": 0.1, "epsilon": 3.0}  # remembered row by row, which U-LiRA sees
CHANGES: dict[str, Any] = {
    "attacks": [NOISE],
    "methods": ["gd", "still"],
    "recipe": {"epochs": 12, "batch_size": 50, "lr": 0.1},
    "ensemble": {"members": MEMBERS},
    "search": {"trials": 2, "startup": 1},
    "seeds": {"tuning": [0], "confirmation": [1, 2]},
}
COLUMNS = {name for name in columns() if name.startswith(("klom_", "neurips_", "ulira_"))}


@dataclass(frozen=True, kw_only=True)
class Still:
    """Changes nothing."""

    needs: ClassVar[tuple[str, ...]] = ()
    anytime: ClassVar[bool] = True

    def updates(self, task: types.Task) -> Iterator[Update]:
        yield from ()

    @classmethod
    def search_space(cls) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, kw_only=True)
class Broken(Still):
    """Works on a whole forget set, not on the half that a shadow has."""

    rows: ClassVar[int] = 20
    diverge: ClassVar[bool] = False

    def updates(self, task: types.Task) -> Iterator[Update]:
        yield Update("step", 1)
        if len(task.forget) < self.rows:
            if not self.diverge:
                raise RuntimeError("out of luck")
            with torch.no_grad():
                next(task.model.parameters()).fill_(float("nan"))


@dataclass(frozen=True, kw_only=True)
class Explosive(Broken):
    """Leaves numbers that are none."""

    diverge: ClassVar[bool] = True


@pytest.fixture(scope="module", autouse=True)
def _methods() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, method in (("still", Still), ("broken", Broken), ("explosive", Explosive)):
            patch.setitem(UNLEARNERS._items, name, method)
        yield


def sweep_of(**changes: Any) -> Sweep:
    return tiny(**(CHANGES | changes))


def members_of(sweep: Sweep, ensembles: Sequence[MeasureEnsemble]) -> list[TrainMember]:
    return list(dict.fromkeys(member for ensemble in ensembles for member in ensemble.needs(sweep)))


def run_everything(sweep: Sweep, out: Path, sweep_dir: Path | None = None) -> int:
    """All tasks in the driver's order, in this process; returns the number of new trials."""
    work, folder = ScenarioCache(sweep, RunEnvironment(out)), sweep_dir or out / sweep.name
    new = sum(run_task(task, Worker(work, folder)) for task in reference_tasks(sweep))
    left = missing(sweep, folder)
    return new + sum(
        run_task(task, Worker(work, folder))
        for task in (*members_of(sweep, left.ensembles), *left.ensembles, *left.studies)
    )


class Finished(NamedTuple):
    sweep: Sweep
    out: Path
    trials: list[Trial]
    trained: Counter[str]  # labels of all trainings

    def compared(self, method: str) -> list[Trial]:
        return [t for t in self.trials if t.stage == "ensemble" and t.method == method]


@contextlib.contextmanager
def counting() -> Iterator[Counter[str]]:
    """Counts the trainings that really take place, by their label."""
    trained: Counter[str] = Counter()
    train = Scenario.train

    def counted(self: Scenario, examples: Any, label: str = "train") -> Any:
        trained[label] += 1
        return train(self, examples, label)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Scenario, "train", counted)
        yield trained


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Read it, never write to it."""
    sweep, out = sweep_of(), tmp_path_factory.mktemp("ensembles")
    with counting() as trained:
        run_everything(sweep, out)
    return Finished(sweep, out, read_trials(out / sweep.name), trained)


@pytest.mark.slow
def test_corrupted_models_are_detected_and_oracles_are_at_the_floor(finished: Finished) -> None:
    ((none,), (oracle,)) = (finished.compared(method) for method in ("none", "oracle"))
    corrupted, clean = (trial.rungs[0].metrics for trial in (none, oracle))
    assert corrupted.keys() == clean.keys() == COLUMNS
    assert corrupted["klom_forget_excess"] > 10 * corrupted["klom_forget_excess_se"]
    assert corrupted["klom_forget_excess"] > corrupted["klom_test_excess"]
    assert clean["klom_forget_excess"] == clean["klom_retain_excess"] == clean["klom_test_excess"] == 0
    assert corrupted["ulira_accuracy"] > 0.9 > corrupted["ulira_accuracy"] - 0.5 > 5 * corrupted["ulira_accuracy_se"]
    assert abs(clean["ulira_accuracy"] - 0.5) < 3 * clean["ulira_accuracy_se"]
    assert clean["neurips_score_normalised"] == 1 > 0.5 > corrupted["neurips_score_normalised"]
    assert (none.rungs[0].flops, oracle.rungs[0].budget_spent) == (0, 1)


@pytest.mark.slow
def test_full_retraining_is_at_the_floor_of_every_metric(finished: Finished) -> None:
    """The exact method, from other initialisations than the oracles': nothing may tell it from them but chance."""
    work, settings = ScenarioCache(finished.sweep, RunEnvironment(finished.out)), UNLEARNERS.get("retrain_at_budget")()
    trials = [t for t in finished.trials if t.study == "gaussian--references--seed1"]
    request = request_of(
        attack="gaussian", stage="ensemble", method="retrain_at_budget", settings=settings, budgets=(1.0,)
    )
    (rung,) = run_ensemble_trial(work, request, read_reference(trials)).rungs
    metrics = rung.metrics
    for rows in ("forget", "retain", "test"):
        assert abs(metrics[f"klom_{rows}_excess"]) < 4 * metrics[f"klom_{rows}_excess_se"] + 0.3
    assert abs(metrics["ulira_accuracy"] - 0.5) < 3 * metrics["ulira_accuracy_se"]
    assert metrics["neurips_utility"] == pytest.approx(1, abs=0.05)
    assert 0.4 < metrics["neurips_score_normalised"] < 2.5
    assert rung.budget_spent == pytest.approx(1, abs=0.05)


def test_a_method_that_does_nothing_equals_no_method(finished: Finished) -> None:
    ((none,), (still,)) = (finished.compared(method) for method in ("none", "still"))
    for rung in still.rungs:
        assert rung.metrics == none.rungs[0].metrics
        assert (rung.flops, rung.status) == (0, "finished")


def test_there_is_a_trial_for_each_choice_with_the_settings_of_its_confirmation(finished: Finished) -> None:
    confirmed = {t.trial_id: t for t in finished.trials if t.stage == "confirmation" and t.seed == 1}
    compared = [t for t in finished.trials if t.stage == "ensemble" and t.proposal is not None]
    shared = attrgetter(
        "method", "settings", "proposal", "chosen_for", "study", "attack", "discovery_rate", "seed", "held_out"
    )
    choices = (sorted(str(shared(trial)) for trial in some) for some in (compared, confirmed.values()))
    assert len(set(map(str, choices))) == 1, "the first confirmation scenario in which the attack took"
    for trial in compared:
        assert [rung.budget for rung in trial.rungs] == [0.1, 0.3]
        for rung in trial.rungs:
            assert rung.metrics.keys() == COLUMNS
            assert rung.budget_spent <= rung.budget
            assert rung.primary_value is rung.removal is rung.score is rung.test_accuracy is None


def test_models_are_trained_once_for_all_methods(finished: Finished) -> None:
    ensemble = {label: times for label, times in finished.trained.items() if label.startswith("ensemble-")}
    labels = {f"ensemble-{role}-{n}" for role in ("corrupted", "shadow") for n in range(MEMBERS)}
    assert ensemble == dict.fromkeys(labels | {f"ensemble-oracle-{n}" for n in range(2 * MEMBERS)}, 1)


def test_another_sweep_on_the_same_store_and_a_larger_ensemble_train_only_what_is_new(finished: Finished) -> None:
    work = ScenarioCache(sweep_of(name="other", methods=["ssd"]), RunEnvironment(finished.out))
    with counting() as trained:
        oracle_outputs(work, "gaussian", 1)
    assert trained == {}
    larger = ScenarioCache(sweep_of(ensemble={"members": MEMBERS + 2}), RunEnvironment(finished.out))
    with counting() as trained:
        for number in range(MEMBERS + 2):
            larger.member("gaussian", 1, "shadow", number)
    assert trained == {f"ensemble-shadow-{MEMBERS}": 1, f"ensemble-shadow-{MEMBERS + 1}": 1}


def test_members_differ(finished: Finished) -> None:
    work = ScenarioCache(finished.sweep, RunEnvironment(finished.out))
    weights = [_flat(work.member("gaussian", 1, role, n).model) for role in ("corrupted", "oracle") for n in range(3)]
    for index, first in enumerate(weights):
        assert all((first - other).norm() > 0.1 * first.norm() for other in weights[:index])


def _flat(model: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


@pytest.mark.slow
def test_a_sweep_stopped_at_any_ensemble_record_goes_on(finished: Finished, tmp_path: Path) -> None:
    whole = science(finished.trials)
    ensembles = [t for t in finished.trials if t.stage == "ensemble"]
    for index, gone in enumerate(ensembles):
        folder = tmp_path / str(index)
        kept = [line for line in lines(finished.out / "tiny") if gone.trial_id not in line]
        for part in (finished.out / "tiny").glob("records/*/*.jsonl"):
            copy = folder / part.relative_to(finished.out / "tiny")
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text("".join(f"{line}\n" for line in part.read_text().splitlines() if line in kept))
        with counting() as trained:
            assert run_everything(finished.sweep, finished.out, folder) == 1
        assert trained == {}
        assert science(read_trials(folder)) == whole
        assert run_everything(finished.sweep, finished.out, folder) == 0


def test_tasks_and_plan(finished: Finished, tmp_path: Path) -> None:
    sweep = sweep_of(discovery_rates=[1, 0.5], ensemble={"members": MEMBERS, "scenarios": 2})
    planned = ensemble_tasks(sweep, tmp_path)
    assert [(c.seed, c.discovery_rate) for c in planned] == [(1, 1), (2, 1), (1, 0.5), (2, 0.5)]
    training = members_of(sweep, planned)
    assert len(training) == len({(task.seed, task.member) for task in training}) == 2 * MEMBERS
    names = [c.name for c in (*planned, *training, *reference_tasks(sweep), *study_tasks(sweep))]
    assert len(set(names)) == len(names)
    assert {"gaussian--ensembles--seed1--found0.5", "gaussian--references--seed0", "gaussian--gd"} <= set(names)
    study = RunStudy("gaussian", 1.0, "gd")
    assert [task.most_trials(sweep) for task in (planned[0], training[0], study)] == [2, 0, 2 + 2 * 2 + 2 * 2]
    assert ensemble_tasks(tiny(), tmp_path) == []


@pytest.mark.slow
def test_the_estimate_counts_ensembles(finished: Finished, tmp_path: Path) -> None:
    work = ScenarioCache(finished.sweep, RunEnvironment(finished.out))
    whole = estimate(work, missing(finished.sweep, tmp_path))
    plain = estimate(
        ScenarioCache(sweep_of(ensemble={}), RunEnvironment(finished.out)), missing(sweep_of(ensemble={}), tmp_path)
    )
    assert whole.trainings - plain.trainings == sum(
        times for label, times in finished.trained.items() if label.startswith("ensemble-")
    )
    gd, still, references = 2, 1, 2  # at most one for each budget; one proposal where nothing is searched
    assert whole.trials - plain.trials == gd + still + references
    per_training = (whole.flops - plain.flops) / (4 * MEMBERS + (gd + still) * 2 * MEMBERS * 0.3)
    assert per_training == pytest.approx(plain.flops / (plain.trainings + _ladders(plain.trials)), rel=1e-6)
    assert estimate(work, missing(finished.sweep, finished.out / "tiny")).trainings == 0


def _ladders(trials: int) -> float:
    """In trainings: studies climb to 0.3, the references of three scenarios climb once to each budget."""
    return trials * 0.3 + 3 * (0.1 + 0.3)


def test_a_scenario_in_which_the_attack_did_not_take_is_passed_over(tmp_path: Path) -> None:
    sweep = sweep_of(attacks=[NOISE | {"fraction": 0.005, "epsilon": 0.01}])
    run_everything(sweep, tmp_path)
    assert {t.stage for t in read_trials(tmp_path / "tiny")} == {"reference"}
    assert ensemble_tasks(sweep, tmp_path / "tiny") == []


def test_a_single_known_poison_leaves_ulira_undefined(finished: Finished, tmp_path: Path) -> None:
    sweep = sweep_of(discovery_rates=[1 / 20, 0.5], methods=["still"])
    run_everything(sweep, finished.out, tmp_path)
    still = {t.discovery_rate: t for t in read_trials(tmp_path) if t.stage == "ensemble" and t.method == "still"}
    without_ulira = {name for name in COLUMNS if not name.startswith("ulira_")}
    assert still[1 / 20].rungs[0].metrics.keys() == without_ulira
    assert still[0.5].rungs[0].metrics.keys() == COLUMNS


def test_a_method_that_fails_or_diverges_on_a_shadow_is_a_record(finished: Finished, tmp_path: Path) -> None:
    sweep = sweep_of(methods=["broken", "explosive"])
    run_everything(sweep, finished.out, tmp_path)
    trials = {t.method: t for t in read_trials(tmp_path) if t.stage == "ensemble"}
    assert trials["broken"].rungs == ()
    assert "out of luck" in trials["broken"].error
    assert [(r.status, r.metrics) for r in trials["explosive"].rungs] == [("diverged", {})] * 2
    assert missing(sweep, tmp_path) == ([], [], [])
    assert load_study(sweep, tmp_path, study_tasks(sweep)[0]).compared == {(0, 1)}


def test_the_size_of_an_ensemble_is_part_of_its_trials_and_of_no_others(finished: Finished) -> None:
    works = [ScenarioCache(sweep_of(ensemble={"members": n}), RunEnvironment(finished.out)) for n in (8, 10)]
    for stage, different in (("ensemble", 2), ("confirmation", 1), ("reference", 1)):
        assert len({trial_id(work, request_of(attack="gaussian", stage=stage)) for work in works}) == different
    assert len({sweep_of(ensemble={"members": n}).identity() for n in (0, 8, 10)}) == 3


@pytest.mark.parametrize("bad", [7, 4, 9, -8])
def test_an_ensemble_is_even_and_has_eight_members(bad: int) -> None:
    with pytest.raises(InputError, match="members must"):
        sweep_of(ensemble={"members": bad})
    with pytest.raises(InputError, match="scenarios must lie in"):
        sweep_of(ensemble={"members": 8, "scenarios": 0})


@pytest.mark.slow
def test_members_are_trained_before_anything_is_studied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[type[Task]] = []
    run = InlineExecutor.run
    monkeypatch.setattr(Driver, "_analyse", lambda self: 0)
    monkeypatch.setattr(
        InlineExecutor, "run", lambda self, folder, place, queue: run(self, folder, place, Noted(queue, begun))
    )
    config = write_config(tmp_path, **(CHANGES | {"methods": ["still"]}))
    arguments = ["--config", str(config), "--out", str(tmp_path), "--inline", "--no-tracking"]
    assert main(arguments) == 0
    kinds = [kind for kind, _ in itertools.groupby(begun)]
    assert kinds[:4] == [CraftPoison, TrainModel, MeasureReferences, TrainMember]
    assert set(kinds[4:]) == {MeasureEnsemble, RunStudy}
    assert begun.count(TrainMember) == MEMBERS
    assert len(read_trials(tmp_path / "tiny")) == 3 + 2 * 4 + 1 + 2 + 1 + 2
    assert main(arguments) == 0


class Noted:
    """A queue that notes what it hands out: kinds of tasks."""

    def __init__(self, queue: Any, begun: list[type[Task]]) -> None:
        self.queue, self.begun, self.done = queue, begun, queue.done

    def next(self, slots: int) -> Task | None:
        task: Task | None = self.queue.next(slots)
        if task:
            self.begun.append(type(task))
        return task
