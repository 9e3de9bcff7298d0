"""The results schema: a trial and its rungs, column by column. Standard library only, so that anything can read it.

A *trial* is one method with its settings, on one scenario at one discovery rate. It is stored as one JSON line (see
`sweeps.schema.lines`) with one entry per budget under "rungs"; `flatten` turns it into rows, one per rung, which is
what `records.parquet` holds. `docs/records.md` is made from these classes.

To add a column, add a field here, where tables are to have it, and give it its value where trials are made
(`sweeps.trials.trial`). Older records lack it: it must be allowed to be empty.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from operator import attrgetter

from sweeps.schema.columns import Column, column, columns_of, record
from sweeps.schema.stages import Stage

SCHEMA_VERSION = 2  # 2: lines have checksums

Value = str | int | float | bool | None

METRIC_PREFIX = "metrics"
GOOD = ("ok", "finished", "unaffordable")
"""Status of a rung whose numbers count; every other status is a failure."""
BUDGET_DIGITS = 9
"""Budgets are matched after rounding, since 0.1 may have been computed as 0.30000000000000004 / 3."""


@record
class Rung:
    """What a trial spent within one budget, and how good the model was then."""

    budget: float = column(
        "share of oracle_flops that the method may spend", unit="share of oracle_flops", least=0, most=1
    )
    budget_spent: float | None = column(
        "share of oracle_flops that the method spent", unit="share of oracle_flops", least=0
    )
    flops: float | None = column(
        "FLOPs spent (matrix products and convolutions, forward and backward)", unit="FLOP", least=0
    )
    sample_passes: float | None = column(
        "FLOPs spent, counted in forward and backward passes of one sample through the full model",
        unit="sample passes",
        least=0,
    )
    steps: float | None = column("updates made", unit="updates", least=0)
    seconds: float | None = column("wall seconds of the updates, evaluation excluded", unit="s", least=0)
    seconds_share: float | None = column("seconds as a share of oracle_seconds", unit="share of oracle_seconds")
    peak_memory_bytes: float | None = column("peak GPU memory of the run so far; empty on CPU", unit="bytes")
    status: str = column(
        "ok (paused at the budget), finished (ended early, state kept), unaffordable (its first update costs "
        "more than the budget: the corrupted model, unchanged), diverged, or failed"
    )
    primary_value: float | None = column("primary metric of the model after unlearning", unit="of the primary metric")
    primary_error: float | None = column("standard error of the primary metric", unit="of the primary metric")
    primary_z: float | None = column(
        "z of the primary metric against no poison, where an exact null exists; else empty", unit="standard deviations"
    )
    removal: float | None = column(
        "(corrupted - value) / (corrupted - oracle); empty when the attack did not take", unit="share"
    )
    efficacy: float | None = column("1 - |1 - removal|", unit="share")
    test_accuracy: float | None = column("accuracy on the held-out rows", unit="share", least=0, most=1)
    utility_gap: float | None = column("oracle_test_accuracy - test_accuracy", unit="share")
    score: float | None = column("what tuning maximises: efficacy - 10 * max(0, utility_gap - tolerance)")
    retrain_at_budget_value: float | None = column(
        "primary metric of retrain_at_budget at the same budget", unit="of the primary metric"
    )
    retrain_at_budget_removal: float | None = column("removal of retrain_at_budget at the same budget", unit="share")
    retrain_at_budget_efficacy: float | None = column("efficacy of retrain_at_budget at the same budget", unit="share")
    retrain_at_budget_test_accuracy: float | None = column(
        "held-out accuracy of retrain_at_budget at the same budget", unit="share"
    )
    metrics: Mapping[str, float | None]
    """By name, as in `unlearn list metrics`; None where undefined.

    Of a bundle also `<part>.<metric>` for each part, with its `<part>.removal` and `<part>.efficacy`."""


@record
class Trial:
    """One finished trial."""

    schema: int = column("version of this schema")
    sweep: str | None = column("name of the sweep")
    scenario_id: str | None = column("content hash of dataset, model, recipe, attack, poison fraction and seed")
    group_id: str | None = column("content hash of the scenario without its seed (the scenario group)")
    trial_id: str = column("content hash of the whole trial")
    study: str = column("study that the trial belongs to, by attack label and method (or `best`), or its references")
    stage: Stage = column(
        "reference, tuning, confirmation or ensemble (many retrainings of one scenario: costs are means per "
        "member, metrics those that compare distributions; methods none and oracle are their references)",
        tracked="parameter",
    )
    held_out: str | None = column(
        "which held-out rows test_accuracy and probes were measured on: validation (tuning) or test",
        tracked="parameter",
    )
    dataset: str | None = column("name of the data set", tracked="parameter")
    model: str | None = column("name of the model", tracked="parameter")
    attack: str = column("label of the attack, unique in the sweep", tracked="parameter")
    attack_settings: str | None = column("JSON of the attack's settings", json=dict)
    regularity: str | None = column("how much the attack's poisons have in common: low, medium or high")
    poison_fraction: float | None = column(
        "poisons as a share of the clean training rows", unit="share of training rows", tracked="parameter"
    )
    discovery_rate: float | None = column(
        "share of the poisons that the unlearner knows; 1/m where it knows one of m",
        unit="share of poisons",
        least=0,
        most=1,
        tracked="parameter",
    )
    discovered: int | None = column(
        "number of poisons that the unlearner knows; the others are in its retain set", unit="rows"
    )
    method: str = column(
        "unlearner, or a reference: none, oracle, retrain (second oracle, other seed), retrain_at_budget, "
        "retrain_discovered (in full on the retain set as given, with the undiscovered poisons; no oracle)",
        tracked="parameter",
    )
    settings: str = column("JSON of the method's settings, all of them", json=dict)
    proposal: int | None = column("number of the proposal in its study; empty for references", tracked="parameter")
    chosen_for: str | None = column(
        "JSON list of the budgets a confirmation trial was chosen for; empty otherwise", json=list, tracked="parameter"
    )
    seed: int = column("scenario seed", tracked="parameter")
    unlearning_seed: int | None = column("seed of the unlearning run", tracked="parameter")
    primary_metric: str | None = column("the attack's own metric, larger = more poison left", tracked="parameter")
    attack_took: bool | None = column(
        "whether corrupted and oracle model are separated in this scenario (and held-out set)"
    )
    failed_parts: str | None = column(
        "parts of a bundle whose attack did not take, comma separated; empty if all did or it has none"
    )
    corrupted_value: float | None = column(
        "primary metric of the corrupted model", unit="of the primary metric", tracked="metric"
    )
    oracle_value: float | None = column("primary metric of the oracle", unit="of the primary metric", tracked="metric")
    corrupted_test_accuracy: float | None = column(
        "held-out accuracy of the corrupted model", unit="share", least=0, most=1, tracked="metric"
    )
    oracle_test_accuracy: float | None = column(
        "held-out accuracy of the oracle", unit="share", least=0, most=1, tracked="metric"
    )
    oracle_flops: float | None = column("FLOPs of training the oracle: the unit of `budget`", unit="FLOP", least=0)
    oracle_seconds: float | None = column("seconds of training the oracle", unit="s", least=0)
    oracle_sample_passes: float | None = column("sample passes of training the oracle", unit="sample passes")
    poisons: int | None = column("number of poisons", unit="rows")
    craft_flops: float | None = column(
        "FLOPs of crafting the poisons, without surrogate and victim; empty where unknown", unit="FLOP"
    )
    craft_seconds: float | None = column(
        "seconds of crafting the poisons; counting the FLOPs is up to a fifth of them (small nets)", unit="s"
    )
    surrogate_flops: float | None = column(
        "FLOPs of training the clean model that the attack asks for; 0 for an attack without one", unit="FLOP"
    )
    surrogate_seconds: float | None = column("seconds of training that clean model", unit="s")
    victim_flops: float | None = column("FLOPs of training the corrupted model", unit="FLOP")
    victim_seconds: float | None = column("seconds of training the corrupted model", unit="s")
    trial_seconds: float | None = column("wall seconds of the whole trial", unit="s")
    evaluation_seconds: float | None = column("seconds of the trial that were spent measuring the model", unit="s")
    error: str | None = column("traceback of a failed trial, else empty")
    finished_at: float | None = column("time the trial was recorded, seconds since 1970", unit="s since 1970")
    code_version: str | None = column("git commit, or the package version where there is no repository")
    machine: str | None = column("JSON: host, processor or GPU, threads, library versions", json=dict)
    gpus: float | None = column("share of a GPU that the trial had; 0 on CPU", unit="GPUs")
    gpu_memory_retries: int | None = column("how often the trial ran out of GPU memory on a smaller share before")
    rungs: tuple[Rung, ...]
    """One per budget, in their order; none in a trial that failed."""

    @property
    def update_seconds(self) -> float:
        """Wall seconds of all updates; the rungs of a trial count them from its beginning."""
        return max((rung.seconds or 0.0 for rung in self.rungs), default=0.0)

    @property
    def has_result(self) -> bool:
        """Whether it was measured; a method that diverged was, too."""
        return bool(self.rungs) and not self.error


@record
class Derived:
    """What follows from the rest of a row: tables have it, the records of trials do not."""

    is_reported: bool = column(
        "whether the report's means are over this row: of a confirmation trial at a budget that it was chosen "
        "for, or of retrain_at_budget in a confirmation scenario, where the attack succeeded and the run did not fail"
    )


TRIAL_COLUMNS: dict[str, Column] = columns_of(Trial)
RUNG_COLUMNS: dict[str, Column] = columns_of(Rung)
DERIVED_COLUMNS: dict[str, Column] = columns_of(Derived)
COLUMNS: dict[str, Column] = TRIAL_COLUMNS | RUNG_COLUMNS | DERIVED_COLUMNS
"""All columns of a table that are no metric, in its order. Every metric has a column besides, of real numbers."""

_trial_values, _rung_values = attrgetter(*TRIAL_COLUMNS), attrgetter(*RUNG_COLUMNS)


def flatten(trial: Trial) -> list[dict[str, Value]]:
    """The rows of one trial, one per rung: columns of the trial, of the rung, derived ones, and one per metric.

    A failed trial has one row without a budget, so that no failure is invisible.
    """
    shared: dict[str, Value] = dict(zip(TRIAL_COLUMNS, _trial_values(trial), strict=True))
    if not trial.rungs:
        return [shared | dict.fromkeys(RUNG_COLUMNS) | {"status": "failed", "is_reported": False}]
    return [
        shared
        | dict(zip(RUNG_COLUMNS, _rung_values(rung), strict=True))
        | {"is_reported": is_reported(trial, rung)}
        | dict(rung.metrics)
        for rung in trial.rungs
    ]


def is_reported(trial: Trial, rung: Rung) -> bool:
    """Whether the report's means are over this rung of the trial."""
    if rung.status not in GOOD or rung.efficacy is None or trial.attack_took is False:
        return False
    if trial.stage == Stage.REFERENCE:
        return trial.method == "retrain_at_budget" and trial.held_out != "validation"
    if trial.stage != Stage.CONFIRMATION:
        return False
    return round(rung.budget, BUDGET_DIGITS) in parse_budgets(trial.chosen_for)


def parse_budgets(text: object) -> list[float]:
    """`chosen_for` as a list, rounded; anything that is no JSON list counts as "not chosen"."""
    try:
        budgets = json.loads(str(text))
    except ValueError:
        return []
    return [round(float(budget), BUDGET_DIGITS) for budget in budgets] if isinstance(budgets, list) else []
