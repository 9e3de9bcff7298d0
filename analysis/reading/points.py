"""From rows to results: a value per seed, a point per (attack, method, budget), and the proposals of tuning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.reading.load import Sweep
from analysis.statistics.intervals import Interval, mean_interval
from sweeps.schema.records import GOOD, parse_budgets
from sweeps.schema.stages import Stage

CASE = ["attack", "method", "budget"]
RETRAIN_AT_BUDGET = "retrain_at_budget"
VALUES = [
    "efficacy", "removal", "primary_value", "utility_gap", "test_accuracy", "score", "budget_spent", "seconds_share",
    "sample_passes", "flops", "seconds", "steps", "peak_memory_bytes", "retrain_at_budget_efficacy",
]  # fmt: skip


COUNTS = ["n_seeds", "n_counted", "n_failed", "n_missing", "n_not_taken"]


class Axis(NamedTuple):
    """What a front is drawn against."""

    column: str
    label: str
    is_share: bool


AXES = {
    "flops": Axis("budget_spent", "FLOPs spent, share of the oracle's", True),
    "seconds": Axis("seconds_share", "seconds spent, share of the oracle's", True),
    "passes": Axis("sample_passes", "sample passes spent", False),
}


def confirmation_seeds(sweep: Sweep) -> set[float]:
    """Seeds of the confirmation scenarios: from the trials, and from the settings for those that lack trials."""
    rows = sweep.rows
    seeds = set(rows.loc[rows["stage"] == Stage.CONFIRMATION, "seed"].dropna())
    listed = sweep.spec.get("seeds")
    seeds_listed = listed.get("confirmation", []) if isinstance(listed, dict) else []
    return seeds | {float(s) for s in seeds_listed if isinstance(s, int | float)}


def references(sweep: Sweep) -> pd.DataFrame:
    """Reference rows, once per scenario, with `role`: tuning or confirmation.

    A scenario may have been measured on both sets of held-out rows; its role decides which one counts.
    """
    rows = sweep.rows[sweep.rows["stage"] == Stage.REFERENCE]
    known = confirmation_seeds(sweep)
    confirms = rows["seed"].isin(known) if known else rows["held_out"] != "validation"
    rows = rows.assign(role=np.where(confirms, Stage.CONFIRMATION.value, Stage.TUNING.value))
    fits = rows["held_out"] != np.where(confirms, "validation", "test")
    usual = [*CASE, "seed", "role"]
    return rows[fits].drop_duplicates([*usual, "trial_id"]).sort_values(usual, ignore_index=True)


def chosen_rungs(rows: pd.DataFrame, values: Sequence[str] = VALUES) -> pd.DataFrame:
    """One row per confirmation trial and budget it was chosen for, with the columns `values`.

    A rung that was never reached is `failed`.
    """
    confirmation = rows[rows["stage"] == Stage.CONFIRMATION]
    shared = ["attack", "method", "seed", "settings", "took"]
    expected = confirmation.drop_duplicates("trial_id")[["trial_id", "chosen_for", *shared]]
    expected = expected.assign(budget=expected.pop("chosen_for").map(parse_budgets)).explode("budget")
    expected = expected.dropna(subset="budget").astype({"budget": float})
    rungs = confirmation.drop_duplicates(["trial_id", "budget"])[["trial_id", "budget", "status", *values]]
    merged = expected.merge(rungs, on=["trial_id", "budget"], how="left")
    return merged.assign(status=merged["status"].fillna("failed"))


def seed_results(sweep: Sweep, reference_rows: pd.DataFrame) -> pd.DataFrame:
    """One row per (attack, method, budget, seed) of the confirmation, retrain@b among the methods.

    Columns: `took`, `failed`, `counted` (bool), `settings`, the columns of VALUES (NaN unless counted),
    `retrain_efficacy`, the second oracle's, and `n_scenarios`, in how many of its scenarios the attack succeeded.
    """
    is_ours = (reference_rows["method"] == RETRAIN_AT_BUDGET) & (reference_rows["role"] == Stage.CONFIRMATION)
    ours = reference_rows[is_ours]
    rungs = pd.concat([chosen_rungs(sweep.rows), ours], ignore_index=True).astype({"took": bool}).copy()
    rungs["failed"] = ~rungs["status"].isin(GOOD) | (rungs["took"] & rungs["efficacy"].isna())
    keys = [*CASE, "seed"]
    grouped = rungs.groupby(keys, sort=True)
    seeds = grouped[VALUES].mean().join(grouped["failed"].any()).join(grouped[["took", "settings"]].first())
    seeds["counted"] = seeds["took"] & ~seeds["failed"]
    seeds[VALUES] = seeds[VALUES].where(seeds["counted"])
    seeds = seeds.reset_index()
    known = pd.concat([seeds, reference_rows[reference_rows["role"] == Stage.CONFIRMATION]])
    taken = known.groupby(["attack", "seed"])["took"].any().groupby("attack").sum()
    return _with_partners(seeds.assign(n_scenarios=seeds["attack"].map(taken)), reference_rows)


def _with_partners(seeds: pd.DataFrame, reference_rows: pd.DataFrame) -> pd.DataFrame:
    """Beside each result, what retrain@b and the second oracle reached in the same scenario."""
    confirmed = reference_rows[reference_rows["role"] == Stage.CONFIRMATION]
    good = confirmed[confirmed["status"].isin(GOOD)]
    rivals = good[good["method"] == RETRAIN_AT_BUDGET].groupby(["attack", "budget", "seed"])
    second = good[good["method"] == "retrain"].groupby(["attack", "seed"])["efficacy"].mean()
    seeds = seeds.join(rivals["efficacy"].mean().rename("looked_up"), on=["attack", "budget", "seed"])
    seeds = seeds.join(rivals["utility_gap"].mean().rename("retrain_at_budget_gap"), on=["attack", "budget", "seed"])
    seeds = seeds.join(second.rename("retrain_efficacy"), on=["attack", "seed"])
    column = "retrain_at_budget_efficacy"
    return seeds.assign(**{column: seeds[column].fillna(seeds.pop("looked_up"))})


def points(seeds: pd.DataFrame, *, tolerance: float) -> pd.DataFrame:
    """One row per (attack, method, budget): means over counted seeds with 95 % intervals.

    Columns: n_seeds (scenarios in which the attack succeeded), n_counted, n_failed, n_missing (no trial yet),
    n_not_taken, the means of VALUES, `<x>_low` and `<x>_high` for efficacy, removal and utility_gap,
    `within_tolerance`, `settings`, and `eligible`: inside the tolerance and counted on all seeds, so that it may lie on
    a front.
    """
    table = pd.DataFrame([_point(key, group) for key, group in seeds.groupby(CASE, sort=True)])
    if table.empty:
        ends = [f"{x}_{end}" for x in ("efficacy", "removal", "utility_gap") for end in ("low", "high")]
        table = blank([*CASE, *COUNTS, "settings", *VALUES, *ends])
    within = table["utility_gap"] <= tolerance
    return table.assign(within_tolerance=within, eligible=within & (table["n_counted"] == table["n_seeds"]))


def blank(columns: Iterable[str]) -> pd.DataFrame:
    """No rows, but the types that rows would have, so that a sweep without results still joins and groups."""
    words = {"attack", "method", "settings", "against", "outcome"}
    return pd.DataFrame({name: pd.Series(dtype=object if name in words else float) for name in columns})


def _point(key: tuple[object, ...], group: pd.DataFrame) -> dict[str, object]:
    taken = group["took"]
    row: dict[str, object] = dict(zip(CASE, key, strict=True))
    total = int(group["n_scenarios"].iloc[0])
    row |= {"n_seeds": total, "n_counted": int(group["counted"].sum()), "n_missing": total - int(taken.sum())}
    row |= {"n_failed": int((group["failed"] & taken).sum()), "n_not_taken": int((~taken).sum())}
    row |= {"settings": group["settings"].iloc[0], **group[VALUES].mean()}
    for name in ("efficacy", "removal", "utility_gap"):
        interval = mean_interval(group[name])
        row |= {f"{name}_low": interval.low, f"{name}_high": interval.high}
    return row


def noise_bands(reference_rows: pd.DataFrame) -> dict[str, Interval]:
    """Efficacy of the second oracle against the first, per attack: what a perfect unlearner would score."""
    second = reference_rows[(reference_rows["method"] == "retrain") & (reference_rows["role"] == Stage.CONFIRMATION)]
    second = second[second["took"]]
    return {str(attack): mean_interval(group["efficacy"]) for attack, group in second.groupby("attack")}


def proposals(sweep: Sweep) -> pd.DataFrame:
    """What tuning saw: one row per (attack, method, budget, settings), means over tuning seeds of good rungs."""
    rows = sweep.rows
    rows = rows[(rows["stage"] == Stage.TUNING) & rows["took"] & rows["status"].isin(GOOD) & rows["efficacy"].notna()]
    keys = [*CASE, "settings"]
    measured = ["efficacy", "utility_gap", "score", "budget_spent", "seconds_share", "sample_passes"]
    grouped = rows.groupby(keys, sort=True, observed=True)
    return grouped[measured].mean().join(grouped.size().rename("n_seeds")).reset_index()
