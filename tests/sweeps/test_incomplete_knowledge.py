"""Poisons that nobody discovered: they stay in the retain set, and the references say what that costs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from sweeps.commands.run import main
from sweeps.config.shares import SINGLE
from sweeps.config.spec import Sweep
from sweeps.execution.run_task import Worker, run_task
from sweeps.planning.missing import missing, references_missing
from sweeps.planning.plan import check_scenarios, estimate
from sweeps.planning.tasks import MeasureReferences
from sweeps.storage.record_log import RecordWriter, Trial, read_folder, read_trials
from sweeps.trials.reference_names import reference_methods
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache, unlearning_streams
from tests.sweeps.conftest import Done
from tests.sweeps.stopping import check_every_stop
from tests.sweeps.tiny import compacted, run_all, run_fresh, science, tiny, write_config
from unlearn_core.checks import InputError
from unlearn_core.scenarios.scenario import Scenario, Split, unlearn
from unlearn_core.types import Examples
from unlearn_core.unlearners.retrain import RetrainAtBudget

POISONS = 20  # a tenth of the tiny sweep's 200 rows
CHANGES: dict[str, Any] = {"discovery_rates": [1, "single"], "methods": ["gd"], "search": {"trials": 1}}
SINGLE_TASK = MeasureReferences("badnets", SINGLE, 1)


@pytest.fixture(scope="module")
def partial(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A finished sweep that knows all poisons, or one. Read it, never write to it."""
    sweep, out = tiny(**CHANGES), tmp_path_factory.mktemp("partial")
    return Done(sweep, out, run_fresh(sweep, out))


def of(done: Done, method: str, *, discovered: int) -> Trial:
    """The only trial of a reference in the confirmation scenario, under this knowledge."""
    wanted = (method, discovered, 1)
    (trial,) = (t for t in done.trials if (t.method, t.discovered, t.seed) == wanted)
    return trial


def remaining_by_hand(work: ScenarioCache, found: set[int]) -> Examples:
    """The poisoned training set of seed 1, row by row, without the rows of these ids."""
    bench, train = work.bench("badnets", 1, "test"), work.dataset.train
    number = {row: i for i, row in enumerate(bench.poisoned.rows.tolist())}
    rows = [
        (bench.poisoned.inputs[number[row]], bench.poisoned.targets[number[row]], train.ids[row])
        if row in number
        else (train.inputs[row], train.targets[row], train.ids[row])
        for row in range(len(train))
        if int(train.ids[row]) not in found
    ]
    return Examples(*map(torch.stack, zip(*rows, strict=True)))


@pytest.mark.parametrize("rate", [1.0, 0.5, SINGLE])
def test_undiscovered_poisons_stay_in_the_retain_set_as_they_were_trained_on(partial: Done, rate: float) -> None:
    work = ScenarioCache(partial.sweep, RunEnvironment(partial.out))
    bench = work.bench("badnets", 1, "test")
    retain, forget = work.split(bench, rate)
    ids = set(work.dataset.train.ids[bench.poisoned.rows].tolist())
    expected = remaining_by_hand(work, set(forget.ids.tolist()))
    assert len(forget) == {1.0: POISONS, 0.5: POISONS // 2, SINGLE: 1}[rate]
    assert set(forget.ids.tolist()) <= ids
    for part in ("inputs", "targets", "ids"):
        assert torch.equal(getattr(retain, part), getattr(expected, part))


def test_records_tell_the_true_share_and_the_count(partial: Done) -> None:
    rates = {(t.discovered, t.discovery_rate) for t in partial.trials}
    assert rates == {(POISONS, 1.0), (1, 1 / POISONS)}
    assert {t.regularity for t in partial.trials} == {"high"}
    table = pd.read_parquet(compacted(partial.dir))
    assert table["discovery_rate"].dtype == np.float64
    assert set(table["discovered"]) == {1, POISONS}


def test_a_retraining_without_the_discovered_is_there_only_where_some_are_not(partial: Done) -> None:
    told = {(t.method, t.discovered, t.seed) for t in partial.trials if t.stage == "reference"}
    both = {(m, n, seed) for m in ("none", "oracle", "retrain_at_budget") for n in (1, POISONS) for seed in (0, 1)}
    assert told == both | {("retrain", 1, 1), ("retrain", POISONS, 1), ("retrain_discovered", 1, 1)}


def test_corrupted_model_and_oracles_do_not_depend_on_what_is_known(partial: Done) -> None:
    for method in ("none", "oracle", "retrain"):
        one, every = (of(partial, method, discovered=n).rungs[0].metrics for n in (1, POISONS))
        assert one == every
    assert of(partial, "oracle", discovered=1).rungs[0].removal == 1


def test_it_is_a_training_on_everything_but_the_discovered(partial: Done) -> None:
    work = ScenarioCache(partial.sweep, RunEnvironment(partial.out))
    bench = work.bench("badnets", 1, "test")
    found = set(work.split(bench, SINGLE).forget.ids.tolist())
    model, cost = bench.scenario.train(remaining_by_hand(work, found), "retrain")
    (rung,) = of(partial, "retrain_discovered", discovered=1).rungs
    assert rung.metrics == {k: None if math.isnan(v) else v for k, v in bench.evaluator(model).items()}
    assert (rung.flops, rung.status) == (cost.flops, "finished")
    assert rung.removal < 0.5 < of(partial, "retrain", discovered=1).rungs[0].removal


def test_retrain_at_budget_knows_no_more_than_the_methods(partial: Done) -> None:
    """Its own training on the rows that are left, by hand; so it gets back most of the backdoor."""
    work = ScenarioCache(partial.sweep, RunEnvironment(partial.out))
    bench = work.bench("badnets", 1, "test")
    split = work.split(bench, SINGLE)
    left = remaining_by_hand(work, set(split.forget.ids.tolist()))
    rival = of(partial, "retrain_at_budget", discovered=1)
    (again,) = unlearn(
        RetrainAtBudget(),
        bench.corrupted.model,
        Split(left, split.forget),
        recipe=partial.sweep.recipe,
        rng=unlearning_streams(bench),
        budgets=[0.3 * bench.oracle.cost.flops],
        evaluator=bench.evaluator,
    )
    assert rival.rungs[-1].primary_value == again.metrics["backdoor_success"]
    informed = of(partial, "retrain_at_budget", discovered=POISONS).rungs[-1].primary_value
    assert rival.rungs[-1].primary_value > informed + 0.1
    study = next(t for t in partial.trials if t.stage == "confirmation" and t.discovered == 1)
    for rung in study.rungs:
        (same,) = (r for r in rival.rungs if r.budget == rung.budget)
        assert rung.retrain_at_budget_value == same.primary_value


def test_nothing_is_trained_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By counting: corrupted and oracle for each of two scenarios, a second oracle, and one retraining per rate."""
    trained: list[str] = []
    train = Scenario.train

    def counted(self: Scenario, examples: Examples, label: str = "train") -> Any:
        trained.append(label)
        return train(self, examples, label)

    monkeypatch.setattr(Scenario, "train", counted)
    sweep = tiny(**CHANGES | {"discovery_rates": ["single", 1, 0.5]})
    run_all(ScenarioCache(sweep, RunEnvironment(tmp_path)), tmp_path / "tiny")
    assert sorted(trained) == ["retrain"] * 3 + ["train"] * 4
    run_all(ScenarioCache(sweep, RunEnvironment(tmp_path)), tmp_path / "another")
    assert len(trained) == 7, "another sweep in the same place trains nothing"


def test_a_rate_that_rounds_to_all_of_them_is_the_second_oracle(partial: Done) -> None:
    work = ScenarioCache(partial.sweep, RunEnvironment(partial.out))
    models = list((partial.out / "store" / "model").iterdir())
    first, second = work.retrained("badnets", 1, 0.99), work.second_oracle("badnets", 1)
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert list((partial.out / "store" / "model").iterdir()) == models


@pytest.mark.slow
def test_stopped_after_any_record(tmp_path: Path) -> None:
    check_every_stop(tiny(**CHANGES), tmp_path, step=3)


def test_a_reference_that_is_missing_is_added_alone(partial: Done, tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, SINGLE_TASK.name)
    for trial in read_folder(partial.dir, SINGLE_TASK.name):
        if trial.method != "retrain_discovered":
            writer.append(trial)
    assert references_missing(tmp_path, SINGLE_TASK, partial.sweep)
    assert run_task(SINGLE_TASK, Worker(ScenarioCache(partial.sweep, RunEnvironment(partial.out)), tmp_path)) == 1
    again, first = (read_folder(folder, SINGLE_TASK.name) for folder in (tmp_path, partial.dir))
    assert science(again) == science(first)
    assert not references_missing(tmp_path, SINGLE_TASK, partial.sweep)


@pytest.mark.parametrize(("stage", "rate", "count"), [
    ("tuning", 1.0, 3), ("tuning", SINGLE, 3), ("confirmation", 1.0, 4), ("confirmation", 0.5, 5),
    ("confirmation", SINGLE, 5),
])  # fmt: skip
def test_number_of_references(stage: str, rate: float, count: int) -> None:
    assert len(reference_methods(stage, rate)) == count
    seed = 0 if stage == "tuning" else 1
    assert MeasureReferences("badnets", rate, seed).most_trials(tiny()) == count


def test_the_plan_counts_each_training_once(partial: Done, tmp_path: Path) -> None:
    work = ScenarioCache(partial.sweep, RunEnvironment(partial.out))
    whole = estimate(work, missing(partial.sweep, tmp_path))
    assert (whole.scenarios, whole.trainings) == (2, 6)
    assert whole.trainings == len(list((partial.out / "store" / "model").iterdir()))
    assert estimate(work, missing(partial.sweep, partial.dir)).trainings == 0


def test_rates_that_come_to_the_same_are_refused(tmp_path: Path) -> None:
    sweep = tiny(discovery_rates=[1, 0.04, "single"])
    with pytest.raises(InputError, match="0.04 and single both mean 1 of the 20 poisons of 'badnets'; take one out"):
        check_scenarios(ScenarioCache(sweep, RunEnvironment(tmp_path)))


def test_the_word_survives_being_written_and_read() -> None:
    sweep = tiny(**CHANGES)
    assert sweep.discovery_rates == (1.0, SINGLE)
    assert sweep.to_dict()["discovery_rates"] == [1.0, "single"]
    assert Sweep.from_dict(sweep.to_dict()) == sweep


def test_a_single_poison_can_be_asked_for_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command(tmp_path), "--dry-run"]) == 0
    plan = " ".join(capsys.readouterr().out.split())
    assert "badnets--references--seed1--foundsingle up to 5 trials" in plan
    assert "trainings 6 from scratch" in plan


@pytest.mark.slow
def test_from_the_command_to_a_report_that_tells_the_cases_apart(tmp_path: Path) -> None:
    assert main(command(tmp_path)) == 0
    assert len(read_trials(tmp_path / "some")) == 3 + 4 + 3 + 5 + 2 * 2
    page = (tmp_path / "some" / "report" / "index.html").read_text()
    assert "badnets, discovered 1 of 20" in page


def command(folder: Path) -> list[str]:
    config = write_config(folder, methods=["gd"], search={"trials": 1})
    what = ["--config", str(config), "--set", "discovery_rates=[1, single]", "--name", "some"]
    return [*what, "--out", str(folder), "--inline", "--no-tracking"]
