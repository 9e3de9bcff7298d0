"""No budget is overspent: what cannot act within one is told in the plan, and counts as nothing removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.commands.run import main
from sweeps.trials.affordable import first_price, too_dear
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.sweeps.tiny import run_fresh, tiny, write_config
from unlearn_core.unlearners import GA, GD, NPO, RandomLabels, RetrainAtBudget

SMALL = (1e-9, 0.02, 0.5)
METHODS = ["gd", "npo", "random_labels", "ssd", "euk"]


@pytest.mark.slow
def test_no_rung_of_a_sweep_spends_more_than_its_budget(tmp_path: Path) -> None:
    trials = run_fresh(tiny(budgets=list(SMALL), methods=METHODS), tmp_path)
    rungs = [(trial, rung) for trial in trials if trial.stage != "reference" for rung in trial.rungs]
    rungs += [(t, rung) for t in trials if t.method == "retrain_at_budget" for rung in t.rungs]
    assert all(trial.error is None for trial in trials)
    assert all(rung.budget_spent <= rung.budget * (1 + 1e-9) for _, rung in rungs)
    idle = [(trial, rung) for trial, rung in rungs if rung.status == "unaffordable"]
    assert {trial.method for trial, _ in idle} == {*METHODS, "retrain_at_budget"}, "1e-9 is too little for all"
    for trial, rung in idle:
        assert (rung.steps, rung.flops) == (0, 0)
        assert rung.primary_value == trial.corrupted_value
        assert rung.test_accuracy == trial.corrupted_test_accuracy
        assert rung.efficacy == (0 if trial.attack_took else None)


@pytest.mark.parametrize(
    ("method", "rows"), [(GD(batch_size=10), 10), (GA(batch_size=3), 3), (RetrainAtBudget(), 50), (NPO(), None)]
)
def test_the_price_of_the_first_update(method: object, rows: int | None, tmp_path: Path) -> None:
    work = ScenarioCache(tiny(recipe={"epochs": 3, "batch_size": 50, "lr": 0.05}), RunEnvironment(tmp_path))
    row = first_price(work, GD(batch_size=1))
    price = first_price(work, method)
    assert price == rows * row if rows else price > row


def test_the_plan_names_what_can_do_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, budgets=list(SMALL), methods=["gd", "random_labels"])
    assert main(["--config", str(config), "--out", str(tmp_path), "--inline", "--dry-run"]) == 0
    told = capsys.readouterr().err
    for name in ("gd", "random_labels", "retrain_at_budget"):
        assert f"warning: {name} can do nothing within budget" in told
    assert list(tmp_path.glob("*/records")) == []


def test_what_can_act_everywhere_is_not_named(tmp_path: Path) -> None:
    work = ScenarioCache(tiny(), RunEnvironment(tmp_path))
    price = first_price(work, RandomLabels())
    assert too_dear(work, training=1000 * price) == []
