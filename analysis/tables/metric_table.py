"""Every metric of every attack: corrupted model, oracle, second oracle, noise floor, and the best method's value."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from analysis.reading.measurements import chosen, metric_meanings, reference_values
from analysis.reading.points import CASE, RETRAIN_AT_BUDGET
from analysis.results.analyse import Results
from sweeps.schema.stages import Stage

COLUMNS = [
    "attack", "metric", "corrupted", "oracle", "second_oracle", "noise_floor", "best_method", "best_budget",
    "best_value", "best_distance", "meaning",
]  # fmt: skip


def metric_table(results: Results) -> pd.DataFrame:
    """One row per (attack, metric) that was measured; means over the confirmation scenarios.

    Columns:
        noise_floor: mean over scenarios of |second oracle - oracle|: a smaller distance means nothing.
        best_method, best_budget: the unlearner with the largest efficacy inside the tolerance, at any budget.
        best_value, best_distance: its mean, and its mean |value - oracle| over scenarios, to hold against the floor.
        meaning: what the metric declares: meaning, target, direction.
    """
    values = reference_values(results.sweep, results.references)
    values = values[values.index.get_level_values("role") == Stage.CONFIRMATION].droplevel("role")
    rungs = chosen(results.sweep)
    best = best_points(results)
    rows = [row for attack in results.attacks for row in _attack(attack, results, values, rungs, best)]
    return pd.DataFrame(rows, columns=COLUMNS)


def best_points(results: Results) -> dict[str, tuple[str, float]]:
    """Per attack, method and budget of the eligible unlearner with the largest mean efficacy."""
    points = results.points
    eligible = points[points["eligible"].astype(bool) & points["efficacy"].notna()]
    eligible = eligible[eligible["method"] != RETRAIN_AT_BUDGET].sort_values("efficacy")
    best = eligible.drop_duplicates("attack", keep="last")[CASE]
    return {str(attack): (str(method), float(budget)) for attack, method, budget in best.itertuples(index=False)}


def _attack(
    attack: str, results: Results, values: pd.DataFrame, rungs: pd.DataFrame, best: dict[str, tuple[str, float]]
) -> Iterator[dict[str, object]]:
    known = values[values.index.get_level_values("attack") == attack].droplevel("attack")
    method, budget = best.get(attack, ("", math.nan))
    is_best = (rungs["attack"] == attack) & (rungs["method"] == method) & (rungs["budget"] == budget)
    own = rungs[is_best].set_index("seed")
    for metric, meaning in metric_meanings(results.sweep).items():
        wide = known[metric].unstack("method").reindex(columns=["none", "oracle", "retrain"]).astype(float)
        if wide.isna().all(axis=None) and own[metric].isna().all():
            continue
        yield {
            "attack": attack,
            "metric": metric,
            **dict(zip(("corrupted", "oracle", "second_oracle"), wide.mean(), strict=True)),
            "noise_floor": (wide["retrain"] - wide["oracle"]).abs().mean(),
            "best_method": method,
            "best_budget": budget,
            "best_value": own[metric].mean(),
            "best_distance": (own[metric] - wide["oracle"].reindex(own.index)).abs().mean(),
            "meaning": meaning,
        }
