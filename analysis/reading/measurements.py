"""Metrics beside results: which there are, the models they were measured on, and what the references have."""

from __future__ import annotations

import pandas as pd

from analysis.reading.load import Sweep
from analysis.reading.points import VALUES, chosen_rungs
from sweeps.schema.records import GOOD
from sweeps.schema.stages import Stage
from unlearn_core.metrics import columns
from unlearn_core.metrics.roc import CURVE

JOINED = ["attack", "method", "seed", "proposal", "budget"]
"""What identifies a measured model among the rungs of the confirmation and of ensembles."""
SINGLE_REFERENCES = ("none", "oracle", "retrain", "retrain_discovered")
"""References with one measurement per scenario."""


def metric_meanings(sweep: Sweep) -> dict[str, str]:
    """Column -> meaning of every metric in the records, in the order of the metrics.

    No standard errors, no points of curves.
    """
    described = sweep.info.get("metrics")
    known = columns() | ({str(k): str(v) for k, v in described.items()} if isinstance(described, dict) else {})
    there = [n for n in [*known, *(c for c in sweep.metric_columns if c not in known)] if n in sweep.rows]
    numbers = [n for n in there if pd.api.types.is_numeric_dtype(sweep.rows[n])]
    values = [n for n in numbers if CURVE not in n and not (n.endswith("_se") and n.removesuffix("_se") in numbers)]
    return {n: known.get(n, "not described") for n in values}


def measured(sweep: Sweep, stage: str) -> pd.DataFrame:
    """Rungs of `stage` with a successful attack and a known efficacy; ensembles' metrics beside the confirmation's."""
    rows = sweep.rows[sweep.rows["stage"] == stage]
    rows = rows[rows["took"] & rows["status"].isin(GOOD) & rows["efficacy"].notna()]
    return with_ensemble(sweep, rows) if stage == Stage.CONFIRMATION else rows


def with_ensemble(sweep: Sweep, rows: pd.DataFrame) -> pd.DataFrame:
    """`rows`, their empty metrics filled from the ensemble of the same model; an unmatched ensemble row is left out."""
    names = [n for n in metric_meanings(sweep) if sweep.ensemble[n].notna().any()]
    if not names:
        return rows
    extra = sweep.ensemble.groupby(JOINED, dropna=False)[names].mean().reset_index()
    both = rows[JOINED].merge(extra, on=JOINED, how="left").set_axis(rows.index)
    return rows.assign(**{n: rows[n].fillna(both[n]) for n in names})


def chosen(sweep: Sweep) -> pd.DataFrame:
    """`points.chosen_rungs` of trials whose attack succeeded, with every metric; values of failed rungs are NaN."""
    names = list(dict.fromkeys([*VALUES, *metric_meanings(sweep)]))
    rungs = chosen_rungs(with_ensemble(sweep, sweep.rows), names)
    rungs = rungs[rungs["took"].astype(bool)]
    good = rungs["status"].isin(GOOD) & rungs["efficacy"].notna()
    return rungs.assign(**{n: rungs[n].where(good) for n in names})


def reference_values(sweep: Sweep, reference_rows: pd.DataFrame) -> pd.DataFrame:
    """Metrics of the references, by (attack, role, seed, method); those of an ensemble belong to the confirmation."""
    names = list(metric_meanings(sweep))
    both = pd.concat([reference_rows, sweep.ensemble.assign(role=Stage.CONFIRMATION.value)], ignore_index=True)
    single = both[both["method"].isin(SINGLE_REFERENCES)]
    return single.groupby(["attack", "role", "seed", "method"])[names].mean()
