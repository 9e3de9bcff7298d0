"""The schema: every promised column, with values that fit together."""

from __future__ import annotations

import json
import math

import pytest

from sweeps.schema.records import (
    COLUMNS,
    DERIVED_COLUMNS,
    RUNG_COLUMNS,
    SCHEMA_VERSION,
    TRIAL_COLUMNS,
    flatten,
)
from tests.sweeps.conftest import Done
from tests.sweeps.tiny import bare_trial
from unlearn_core.metrics import columns

PROMISED = """sweep scenario_id trial_id stage dataset model attack poison_fraction discovery_rate method settings seed
    budget budget_spent flops sample_passes steps seconds status primary_metric primary_value corrupted_value
    oracle_value retrain_at_budget_value removal efficacy test_accuracy oracle_test_accuracy utility_gap""".split()


def test_no_promised_column_is_missing_and_no_name_is_used_twice() -> None:
    assert set(PROMISED) <= TRIAL_COLUMNS.keys() | RUNG_COLUMNS.keys()
    assert not TRIAL_COLUMNS.keys() & RUNG_COLUMNS.keys()
    assert not columns().keys() & (TRIAL_COLUMNS.keys() | RUNG_COLUMNS.keys() - {"test_accuracy"})
    assert len(COLUMNS) == len(TRIAL_COLUMNS) + len(RUNG_COLUMNS) + len(DERIVED_COLUMNS)


def test_trials_hold_exactly_the_columns_of_the_schema(done: Done) -> None:
    for trial in done.trials:
        assert trial.schema == SCHEMA_VERSION
        for rung in trial.rungs:
            assert rung.metrics.keys() <= columns().keys()


def test_a_row_per_rung_with_all_columns(done: Done) -> None:
    for trial in done.trials:
        rows = flatten(trial)
        assert len(rows) == len(trial.rungs)
        for row, rung in zip(rows, trial.rungs, strict=True):
            assert TRIAL_COLUMNS.keys() | RUNG_COLUMNS.keys() <= row.keys()
            assert row["budget"] == rung.budget
            assert row["backdoor_success"] == rung.primary_value


def test_a_failed_trial_is_one_row() -> None:
    (row,) = flatten(bare_trial(0, trial_id="a", error="Traceback"))
    assert (row["trial_id"], row["status"], row["budget"], row["error"]) == ("a", "failed", None, "Traceback")


def test_values_of_a_rung_fit_together(done: Done) -> None:
    for trial in done.trials:
        corrupted, oracle = trial.corrupted_value, trial.oracle_value
        for row in flatten(trial):
            assert row["removal"] == pytest.approx((corrupted - row["primary_value"]) / (corrupted - oracle))
            assert row["efficacy"] == pytest.approx(1 - abs(1 - row["removal"]))
            assert row["utility_gap"] == pytest.approx(row["oracle_test_accuracy"] - row["test_accuracy"])
            assert row["budget_spent"] == pytest.approx(row["flops"] / row["oracle_flops"])
            assert row["seconds_share"] == pytest.approx(row["seconds"] / row["oracle_seconds"])
            assert row["sample_passes"] / row["oracle_sample_passes"] == pytest.approx(row["budget_spent"])
            assert json.loads(row["machine"])["host"]


def test_references_are_what_their_names_say(done: Done) -> None:
    references = {(t.method, t.seed): t for t in done.trials if t.stage == "reference"}
    scenarios = {(0, "validation"), (1, "test")}
    assert {(t.seed, t.held_out) for t in done.trials} == scenarios
    methods = {"none", "oracle", "retrain_at_budget"}
    assert references.keys() == {(m, seed) for m in methods for seed in (0, 1)} | {("retrain", 1)}
    for seed, _ in scenarios:
        (none,), (oracle,) = (references[name, seed].rungs for name in ("none", "oracle"))
        assert (none.budget_spent, none.removal, none.primary_value) == (
            0,
            0,
            references["none", seed].corrupted_value,
        )
        assert (oracle.budget_spent, oracle.removal, oracle.utility_gap) == (1, 1, 0)
        for rung in references["retrain_at_budget", seed].rungs:
            assert rung.primary_value == rung.retrain_at_budget_value
            assert rung.test_accuracy == rung.retrain_at_budget_test_accuracy
    assert references["retrain", 1].rungs[0].metrics != references["oracle", 1].rungs[0].metrics


def test_costs_grow_along_the_ladder_and_metrics_are_finite(done: Done) -> None:
    for trial in done.trials:
        for column in ("budget", "budget_spent", "steps"):
            values = [getattr(rung, column) for rung in trial.rungs]
            assert values == sorted(values)
        for rung in trial.rungs:
            assert all(value is None or math.isfinite(value) for value in rung.metrics.values())
