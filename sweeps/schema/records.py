"""The results schema. Standard library only, so that anything can read it.

A *trial* (scenario, discovery rate, method with settings, seed) is stored as one JSON line with one entry per budget
under "rungs"; `flatten` turns it into rows, one per rung, which is what `records.parquet` holds.
"""

from __future__ import annotations

import json
from typing import Any

from sweeps.schema.stages import Stage

SCHEMA_VERSION = 2  # 2: lines have checksums

TRIAL_COLUMNS: dict[str, str] = {
    "schema": "version of this schema",
    "sweep": "name of the sweep",
    "scenario_id": "content hash of dataset, model, recipe, attack, poison fraction and seed",
    "group_id": "content hash of the scenario without its seed (the scenario group)",
    "trial_id": "content hash of the whole trial",
    "study": "cell that the trial belongs to: attack label and method (or `best`)",
    "stage": "reference, tuning, confirmation or ensemble (many retrainings of one scenario: costs are means per "
    "member, metrics those that compare distributions; methods none and oracle are their references)",
    "held_out": "which held-out rows test_accuracy and probes were measured on: validation (tuning) or test",
    "dataset": "name of the data set",
    "model": "name of the model",
    "attack": "label of the attack, unique in the sweep",
    "attack_settings": "JSON of the attack's settings",
    "regularity": "how much the attack's poisons have in common: low, medium or high",
    "poison_fraction": "poisons as a share of the clean training rows",
    "discovery_rate": "share of the poisons the unlearner was told about; 1/m where that is a single one of m",
    "discovered": "number of those poisons; the others are in its retain set",
    "method": "unlearner, or a reference: none, oracle, retrain (second oracle, other seed), retrain_at_budget, "
    "retrain_discovered (in full on the retain set as given, with the undiscovered poisons; no oracle)",
    "settings": "JSON of the method's settings, all of them",
    "proposal": "number of the proposal in its study; empty for references",
    "chosen_for": "JSON list of the budgets a confirmation trial was chosen for; empty otherwise",
    "seed": "scenario seed",
    "unlearning_seed": "seed of the unlearning run",
    "primary_metric": "the attack's own metric, larger = more poison left",
    "attack_took": "whether corrupted and oracle model are separated in this scenario (and held-out set)",
    "failed_parts": "parts of a bundle whose attack did not take, comma separated; empty if all did or it has none",
    "corrupted_value": "primary metric of the corrupted model",
    "oracle_value": "primary metric of the oracle",
    "corrupted_test_accuracy": "held-out accuracy of the corrupted model",
    "oracle_test_accuracy": "held-out accuracy of the oracle",
    "oracle_flops": "FLOPs of training the oracle: the unit of `budget`",
    "oracle_seconds": "seconds of training the oracle",
    "oracle_sample_passes": "sample passes of training the oracle",
    "poisons": "number of poisons",
    "craft_flops": "FLOPs of crafting them, when that was done; surrogate and victim apart; empty where unknown",
    "craft_seconds": "seconds of it, up to a fifth of which (small nets) counting the FLOPs takes",
    "surrogate_flops": "FLOPs of training the clean model that the attack asked for; 0 for an attack without one",
    "surrogate_seconds": "seconds of it",
    "victim_flops": "FLOPs of training the corrupted model",
    "victim_seconds": "seconds of it",
    "trial_seconds": "wall seconds of the whole trial",
    "evaluation_seconds": "of those, seconds spent measuring the model",
    "error": "traceback of a failed trial, else empty",
    "finished_at": "time the trial was recorded, seconds since 1970",
    "code_version": "git commit, or the package version where there is no repository",
    "machine": "JSON: host, processor or GPU, threads, library versions",
    "gpus": "share of a GPU that the trial had; 0 on CPU",
    "gpu_memory_retries": "how often it had run out of GPU memory on a smaller share before",
}

RUNG_COLUMNS: dict[str, str] = {
    "budget": "share of oracle_flops that the method was allowed",
    "budget_spent": "share of oracle_flops that it spent",
    "flops": "FLOPs spent (matrix products and convolutions, forward and backward)",
    "sample_passes": "FLOPs spent, in units of one forward and backward pass of one sample through the full model",
    "steps": "updates made",
    "seconds": "wall seconds of the updates, evaluation excluded",
    "seconds_share": "seconds as a share of oracle_seconds",
    "peak_memory_bytes": "peak GPU memory of the run so far; empty on CPU",
    "status": "ok (paused at the budget), finished (ended early, state kept), unaffordable (its first update costs "
    "more than the budget: the corrupted model, unchanged), diverged, or failed",
    "primary_value": "primary metric",
    "primary_error": "its standard error",
    "primary_z": "its z against no poison where an exact null exists, else empty",
    "removal": "(corrupted - value) / (corrupted - oracle); empty when the attack did not take",
    "efficacy": "1 - |1 - removal|",
    "test_accuracy": "accuracy on the held-out rows",
    "utility_gap": "oracle_test_accuracy - test_accuracy",
    "score": "what tuning maximises: efficacy - 10 * max(0, utility_gap - tolerance)",
    "retrain_at_budget_value": "primary metric of retrain_at_budget at the same budget",
    "retrain_at_budget_removal": "its removal",
    "retrain_at_budget_efficacy": "its efficacy",
    "retrain_at_budget_test_accuracy": "its held-out accuracy",
}
"""Besides these, a row has one column per metric, named as in `sweeps list`; empty where a metric does not apply.
Of a bundle also `<part>.<metric>` for each part, with its `<part>.removal` and `<part>.efficacy`."""

DERIVED_COLUMNS: dict[str, str] = {
    "is_reported": "whether the report's means are over this row: of a confirmation trial at a budget that it was "
    "chosen for, or of retrain_at_budget in a confirmation scenario, where the attack took and the run did not fail",
}
"""Follow from the others: tables have them, the records of trials do not."""

HYPOTHESIS_COLUMNS: dict[str, str] = {
    "attack": "label of the attack",
    "seed": "of the poisons, of what is removed and of the mini-batches",
    "group": "what is removed: poison, random (clean rows), matched (clean rows with the poisons' labels); of the "
    "measures of effect the minimiser: corrupted, oracle",
    "problem": "linear model on the frozen features: softmax (cross-entropy) or squared (on one-hot labels)",
    "measure": "one of HYPOTHESIS_MEASURES",
    "at": "where it is measured, in the unit that the measure says; 0 where there is none",
    "value": "the measured number",
}
HYPOTHESIS_MEASURES: dict[str, str] = {
    "l1": "L1 distance that the minimiser moves when a share `at` of the poisons, or as many others, is removed",
    "l2": "the same in L2",
    "loss": "mean loss in nats of those rows at the corrupted minimiser",
    "residual": "mean L2 norm of probabilities minus one-hot label of those rows at the corrupted minimiser",
    "full_cosine": "cosine of the descent direction on all retained rows with the wanted direction v",
    "batch_cosine": "the same on mini-batch number `at`",
    "path_cosine_batch": "cosine of the accumulated update made in `at` steps on mini-batches with v",
    "path_length_batch": "length of that update as a multiple of the length of v",
    "path_cosine_full": "cosine of the accumulated update made in `at` steps on all retained rows with v",
    "path_length_full": "length of that update as a multiple of the length of v",
    "residual_share": "share of the square of v outside the span of the leading right singular vectors of the retained "
    "rows' gradients, `at` times as many as there are weights",
    "primary": "the attack's own metric, larger = more poison left",
    "z": "its z against no poison, where an exact null exists",
    "test_accuracy": "accuracy on held-out rows",
    "took": "1 where the attack separates the two minimisers, else 0",
}

METRIC_PREFIX = "metrics"
WHOLE_NUMBERS = ("schema", "discovered", "poisons", "proposal", "seed", "unlearning_seed", "gpu_memory_retries")
TRUTH_VALUES = ("attack_took", "is_reported")
GOOD = ("ok", "finished", "unaffordable")
"""Status of a rung whose numbers count; every other status is a failure."""
BUDGET_DIGITS = 9
"""Budgets are matched after rounding, since 0.1 may have been computed as 0.30000000000000004 / 3."""
TEXTS = (
    "sweep", "scenario_id", "group_id", "trial_id", "study", "stage", "held_out", "dataset", "model", "attack",
    "attack_settings", "regularity", "method", "settings", "chosen_for", "primary_metric", "failed_parts", "error",
    "code_version", "machine", "status",
)  # fmt: skip
"""Types of the columns; every other one holds real numbers, empty (null) where undefined."""


def flatten(trial: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of one trial, one per rung: shared columns, rung columns, one column per metric.

    A failed trial has one row without a budget, so that no failure is invisible.
    """
    shared = {name: trial.get(name) for name in TRIAL_COLUMNS}
    rungs = trial.get("rungs") or [{"status": "failed"}]
    derived = ({"is_reported": is_reported(trial, rung)} for rung in rungs)
    return [
        shared | {name: rung.get(name) for name in RUNG_COLUMNS} | more | dict(rung.get(METRIC_PREFIX) or {})
        for rung, more in zip(rungs, derived, strict=True)
    ]


def is_reported(trial: dict[str, Any], rung: dict[str, Any]) -> bool:
    """Whether the report's means are over this rung of the trial."""
    if rung.get("status") not in GOOD or rung.get("efficacy") is None or trial.get("attack_took") is False:
        return False
    if trial.get("stage") == Stage.REFERENCE:
        return trial.get("method") == "retrain_at_budget" and trial.get("held_out") != "validation"
    if trial.get("stage") != Stage.CONFIRMATION or rung.get("budget") is None:
        return False
    return round(rung["budget"], BUDGET_DIGITS) in parse_budgets(trial.get("chosen_for"))


def parse_budgets(text: object) -> list[float]:
    """`chosen_for` as a list, rounded; anything that is no JSON list counts as "not chosen"."""
    try:
        budgets = json.loads(str(text))
    except ValueError:
        return []
    return [round(float(budget), BUDGET_DIGITS) for budget in budgets] if isinstance(budgets, list) else []
