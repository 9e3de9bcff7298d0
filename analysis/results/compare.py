"""Paired comparisons with retraining across the grid, and the area under each front."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.reading.points import CASE, RETRAIN_AT_BUDGET, Axis, blank
from analysis.statistics.intervals import Interval, benjamini_hochberg, jackknife, mean_interval, p_value
from analysis.statistics.pareto import hypervolume
from unlearn_core.metrics import score

SIGNIFICANT = 0.05
SCORED = "retrain_at_budget, score"
AGAINST = {
    RETRAIN_AT_BUDGET: ("efficacy", "retrain_at_budget_efficacy"),
    SCORED: ("own_score", "retrain_at_budget_score"),
    "retrain": ("efficacy", "retrain_efficacy"),
}
"""What is compared -> column of the method, column of its rival in the same scenario."""

BEATS, WORSE, UNDECIDED, FEW = "beats", "worse", "undecided", "too few seeds"
COSTLY = "more, outside tolerance"
FAILING = "more, seeds lost"
NO_RIVAL = "less, rival outside tolerance"
COLUMNS = [
    "difference",
    "low",
    "high",
    "n",
    "n_seeds",
    "n_failed",
    "p",
    "q",
    "within_tolerance",
    "removes",
    "rival_within",
]


def comparisons(seeds: pd.DataFrame, points: pd.DataFrame, *, tolerance: float) -> pd.DataFrame:
    """Each unlearner minus retrain@b and the second oracle in the same scenarios.

    Efficacy, and against retrain@b also the score, which takes utility into account (a rival that lost its accuracy
    is no rival).

    Returns:
        One row per (against, attack, method, budget) with mean difference, 95 % interval, p, q (Benjamini-Hochberg over
        the grid, for each reference on its own) and `outcome`.
    """
    own = seeds[seeds["method"] != RETRAIN_AT_BUDGET]
    own = own.assign(
        own_score=_scores(own["efficacy"], own["utility_gap"], tolerance),
        retrain_at_budget_score=_scores(own["retrain_at_budget_efficacy"], own["retrain_at_budget_gap"], tolerance),
    )
    rows = [
        {"against": against, **dict(zip(CASE, key, strict=True)), **_difference(group, *columns)}
        for against, columns in AGAINST.items()
        for key, group in own.groupby(CASE, sort=True)
    ]
    if not rows:
        return blank(["against", *CASE, *COLUMNS, "outcome"])
    table = pd.DataFrame(rows)
    table["q"] = table.groupby("against")["p"].transform(benjamini_hochberg)
    removes = points.assign(removes=points["efficacy_low"] > 0)
    table = table.merge(removes[[*CASE, "within_tolerance", "removes"]], on=CASE, how="left")
    rival = points.loc[points["method"] == RETRAIN_AT_BUDGET, ["attack", "budget", "within_tolerance"]]
    table = table.merge(rival.rename(columns={"within_tolerance": "rival_within"}), on=["attack", "budget"], how="left")
    full = (table["against"] != RETRAIN_AT_BUDGET) | table["rival_within"].isna()
    table["rival_within"] = table["rival_within"].where(~full, True).astype(bool)
    return table.assign(outcome=_outcomes(table))


def _scores(efficacy: pd.Series, gap: pd.Series, tolerance: float) -> pd.Series:
    """The score that tuning maximises (`unlearn_core.metrics.score`), at this tolerance."""
    pairs = zip(efficacy.astype(float), gap.astype(float), strict=True)
    values = [
        math.nan if math.isnan(e) or math.isnan(g) else score(efficacy=e, utility_gap=g, tolerance=tolerance)
        for e, g in pairs
    ]
    return pd.Series(values, index=efficacy.index, dtype=float)


def _difference(group: pd.DataFrame, own: str, rival: str) -> dict[str, object]:
    paired = group[own] - group[rival]
    interval = mean_interval(paired)
    return {
        "difference": interval.mean,
        "low": interval.low,
        "high": interval.high,
        "n": interval.n,
        "n_seeds": int(group["n_scenarios"].iloc[0]),
        "n_failed": int((group["failed"] & group["took"]).sum()),
        "p": p_value(paired),
    }


def _outcomes(table: pd.DataFrame) -> NDArray[np.str_]:
    """A claim of winning needs every seed and the tolerance; a loss counts only against a rival inside it."""
    idle = (table["against"] == SCORED) & ~table["removes"].astype(bool)  # to be less wrecked is not to unlearn
    clear = (table["q"] <= SIGNIFICANT) & ~idle
    more, less = clear & (table["difference"] > 0), clear & (table["difference"] < 0)
    rules = [
        (table["n"] < 2, FEW),
        (more & (table["n"] < table["n_seeds"]), FAILING),
        (more & ~table["within_tolerance"].astype(bool), COSTLY),
        (more, BEATS),
        (less & ~table["rival_within"], NO_RIVAL),
        (less, WORSE),
    ]
    return np.select([rule for rule, _ in rules], [outcome for _, outcome in rules], default=UNDECIDED)


class Grid(NamedTuple):
    """Results of one attack as arrays: rows are seeds, columns are (method, budget)."""

    methods: NDArray[np.str_]  # (k,)
    cost: NDArray[np.float64]  # (seeds, k)
    efficacy: NDArray[np.float64]
    gap: NDArray[np.float64]


def hypervolumes(seeds: pd.DataFrame, *, axis: Axis, tolerance: float) -> pd.DataFrame:
    """Area under the front of each method, of all unlearners together and of retrain@b, as a share of the largest.

    The largest is efficacy 1 from no cost up to the largest mean cost of any method, so 0 = nothing was gained and
    1 = the oracle at no cost. Points outside the tolerance or not counted on all seeds add nothing.
    Intervals: jackknife over seeds, cut to [0, 1].
    """
    rows: list[dict[str, object]] = []
    for attack, group in seeds[seeds["took"]].groupby("attack", sort=True):
        grid = _grid(group, axis)
        largest = np.nanmax(_means(grid.cost), initial=0.0)
        unlearners = [m for m in sorted(set(grid.methods)) if m != RETRAIN_AT_BUDGET]
        chosen = {"all unlearners": unlearners, RETRAIN_AT_BUDGET: [RETRAIN_AT_BUDGET], **{m: [m] for m in unlearners}}
        for name, methods in chosen.items():
            interval = _area(grid, np.isin(grid.methods, methods), largest=float(largest), tolerance=tolerance)
            rows.append({"attack": attack, "front": name, **interval._asdict()})
    return pd.DataFrame(rows, columns=["attack", "front", *Interval._fields])


def _grid(group: pd.DataFrame, axis: Axis) -> Grid:
    columns = pd.MultiIndex.from_frame(group[["method", "budget"]].drop_duplicates())

    def matrix(name: str) -> NDArray[np.float64]:
        wide = group.set_index(["seed", "method", "budget"])[name].unstack(["method", "budget"])
        return wide.reindex(columns=columns).to_numpy(dtype=float)

    methods = columns.get_level_values("method").to_numpy(dtype=str)
    return Grid(methods, matrix(axis.column), matrix("efficacy"), matrix("utility_gap"))


def _area(grid: Grid, columns: NDArray[np.bool_], *, largest: float, tolerance: float) -> Interval:
    if not columns.any() or not largest > 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    columns = columns & np.isfinite(grid.efficacy).all(axis=0)  # seeds failed elsewhere
    cost, efficacy, gap = grid.cost[:, columns], grid.efficacy[:, columns], grid.gap[:, columns]

    allowed = _means(gap) <= tolerance  # judged on all seeds, like the front that is shown

    def area(kept: NDArray[np.intp]) -> float:
        means = _means(cost[kept]), _means(efficacy[kept])
        return hypervolume(cost=means[0][allowed], gain=means[1][allowed], worst_cost=largest) / largest

    found = jackknife(area, len(cost))
    return found._replace(low=float(np.clip(found.low, 0, 1)), high=float(np.clip(found.high, 0, 1)))


def _means(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Column means that ignore NaN and are NaN, without a warning, where a column holds nothing else."""
    measured = np.isfinite(values)
    return np.where(measured, values, 0.0).sum(axis=0) / np.where(measured.any(axis=0), measured.sum(axis=0), np.nan)
