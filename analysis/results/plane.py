"""The plane of incomplete knowledge: share of the poisons discovered against regularity of the corruption.

Healed is the share of corrupted rows that the model predicts with their true label, utility its accuracy on clean
held-out rows, and their product, per model, is what the plane is about. Source: Goel et al., TMLR 2024,
arXiv:2402.14015 (the two axes); REM, ICLR 2026, arXiv:2505.17730 (the measures).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.reading.load import Sweep, attack_name
from analysis.reading.measurements import chosen, metric_meanings
from analysis.reading.points import RETRAIN_AT_BUDGET
from analysis.statistics.intervals import mean_interval
from sweeps.schema.stages import Stage

LARGEST_BUDGET = 0.10
"""Results are taken at the largest budget of a method up to this one."""
PLANE_REFERENCES = ("none", "oracle", "retrain_discovered", RETRAIN_AT_BUDGET)
"""References of the plane, in the order in which they are shown."""
REGULARITY = {"low": 0, "medium": 1, "high": 2}
MEASURES = {"healed": "healed", "utility": "utility", "product": "utility x healed", "efficacy": "efficacy"}
CELL = ["method", "base_attack", "discovery_rate"]
PUBLISHED = {
    "REM": (81.2, 90.5, 73.4),
    "Potion": (49.4, 53.1, 36.2),
    "Retrained": (53.6, 90.5, 48.5),
}
"""Healed, utility and utility x healed in per cent, as stated for CIFAR-10, ResNet-9 and 1,000 corrupted rows."""
PUBLISHED_ATTACKS = {"label_flip": "low", "interclass_confusion": "medium", "badnets": "high"}
"""Attacks over which the published figures are averages, with their regularity."""
OURS = "this sweep"
PUBLISHED_SOURCE = "published, other setting: CIFAR-10, ResNet-9, 1,000 corrupted; REM, ICLR 2026, arXiv:2505.17730"


class Plane(NamedTuple):
    """All results on the plane."""

    seeds: pd.DataFrame  # CELL, seed, budget and MEASURES as shares, of every scenario in which the attack succeeded
    rows: tuple[str, ...]  # base attacks from low to high regularity
    regularity: dict[str, str]  # base attack -> low, medium, high or ""
    rates: tuple[float, ...]  # discovery rates, rising
    single: float | None  # the one among them that stands for a single discovered poison
    comparable: bool  # whether the published figures are of the same data set and the same kinds of corruption


def plane(sweep: Sweep, reference_rows: pd.DataFrame, *, largest: float = LARGEST_BUDGET) -> Plane | None:
    """Results by discovery rate and attack; None where there is no plane.

    A plane needs two discovery rates, or two attacks with `healed` (which only attacks with wrong labels have) that
    differ in regularity; attacks without `healed` are left out of a plane with a single rate. Where everything was
    discovered, retraining without the discovered poisons is the oracle, whose values stand there for
    `retrain_discovered`. A single discovered poison is another share for each number of poisons; it is one column, at
    the smallest of those shares.
    """
    cases = _cases(sweep)
    rungs = pd.concat([_methods(sweep, largest), _references(sweep, reference_rows, largest)], ignore_index=True)
    rungs = rungs.merge(cases, on="attack")
    rates = sorted(rungs["discovery_rate"].dropna().unique())
    if len(rates) < 2:
        told_healed = rungs[rungs["healed"].notna()]
        if told_healed.loc[told_healed["regularity"] != "", "regularity"].nunique() < 2:
            return None
        rungs = rungs[rungs["base_attack"].isin(told_healed["base_attack"])]
    rungs = pd.concat([rungs, _all_discovered(rungs)], ignore_index=True)
    regularity = {str(a): str(r) for a, r in rungs.groupby("base_attack", sort=False)["regularity"].first().items()}
    order = sorted(regularity, key=lambda attack: REGULARITY.get(regularity[attack], len(REGULARITY)))
    kept = rungs[[*CELL, "seed", "budget", *MEASURES]]
    single = cases.loc[cases["single"], "discovery_rate"]
    return Plane(
        seeds=kept.drop_duplicates([*CELL, "seed"]),
        rows=tuple(order),
        regularity=regularity,
        rates=tuple(rates),
        single=float(single.iloc[0]) if len(single) else None,
        comparable=_comparable(sweep, regularity),
    )


def _comparable(sweep: Sweep, regularity: dict[str, str]) -> bool:
    """Whether all three kinds of corruption of the published figures, and no other, act on CIFAR-10."""
    names = {a: attack_name(sweep, a) for a in regularity}
    found = {(names[a], level) for a, level in regularity.items()}
    return set(sweep.rows["dataset"].dropna()) == {"cifar10"} and found == set(PUBLISHED_ATTACKS.items())


def _cases(sweep: Sweep) -> pd.DataFrame:
    """Base attack, regularity, discovery rate of each attack label, and whether that is a single poison of several."""
    columns = ["base_attack", "regularity", "discovery_rate", "discovered"]
    cases = sweep.rows.reindex(columns=["attack", *columns]).groupby("attack", sort=False)[columns].first()
    rates = cases["discovery_rate"]
    single = (cases.pop("discovered") == 1) & (rates < 1)
    return cases.assign(discovery_rate=rates.mask(single, rates[single].min()), single=single).reset_index()


def _methods(sweep: Sweep, largest: float) -> pd.DataFrame:
    """Each method at its largest budget up to `largest`; a failed rung is a row without values."""
    rungs = chosen(sweep)
    rungs = rungs[rungs["budget"] <= largest + 1e-9]
    at_most = rungs.groupby(["attack", "method"])["budget"].transform("max")
    return _measures(sweep, rungs[rungs["budget"] == at_most])


def _references(sweep: Sweep, reference_rows: pd.DataFrame, largest: float) -> pd.DataFrame:
    own = reference_rows[
        reference_rows["method"].isin(PLANE_REFERENCES) & (reference_rows["role"] == Stage.CONFIRMATION)
    ]
    own = own[own["took"]]
    of_budget = own["method"] == RETRAIN_AT_BUDGET
    own = own[~of_budget | (own["budget"] <= largest + 1e-9)]
    at_most = own.groupby(["attack", "method"])["budget"].transform("max")
    return _measures(sweep, own[own["budget"] == at_most])


def _measures(sweep: Sweep, rungs: pd.DataFrame) -> pd.DataFrame:
    """Healed, utility, their product and efficacy; NaN where the records do not have them."""
    known = metric_meanings(sweep)
    healed, utility = (
        rungs[n].astype(float) if n in known else pd.Series(float("nan"), index=rungs.index)
        for n in ("healed", "utility")
    )
    values = {"healed": healed, "utility": utility, "product": healed * utility}
    return rungs[["attack", "method", "seed", "budget", "efficacy"]].assign(**values)


def _all_discovered(rungs: pd.DataFrame) -> pd.DataFrame:
    known = set(rungs.loc[rungs["method"] == "retrain_discovered", "base_attack"])
    oracle = rungs[(rungs["method"] == "oracle") & (rungs["discovery_rate"] == 1) & rungs["base_attack"].isin(known)]
    return oracle.assign(method="retrain_discovered")


def measure_of(shown: Plane, attack: str) -> str:
    """What the plane shows for an attack: utility x healed, or efficacy where nothing says what was healed."""
    own = shown.seeds[shown.seeds["base_attack"] == attack]
    return "product" if own["product"].notna().any() else "efficacy"


def order_of(shown: Plane, methods: list[str]) -> list[str]:
    """References first, then `methods`; those without any result are left out."""
    present = set(shown.seeds["method"])
    return [m for m in (*PLANE_REFERENCES, *(m for m in methods if m not in PLANE_REFERENCES)) if m in present]


def cell_table(shown: Plane) -> pd.DataFrame:
    """One row per method and cell: means over seeds with 95 % intervals, shares in per cent, efficacy as it is."""
    rows = []
    for key, group in shown.seeds.groupby(CELL, sort=False):
        row: dict[str, object] = dict(zip(CELL, key, strict=True))
        row |= {"single_poison": row["discovery_rate"] == shown.single}
        row |= {"regularity": shown.regularity[str(row["base_attack"])], "budget": group["budget"].max()}
        row |= {"n_seeds": len(group), "n_counted": int(group["efficacy"].notna().sum())}
        rows.append(row | _intervals(group))
    return pd.DataFrame(rows)


def average_table(shown: Plane, methods: list[str]) -> pd.DataFrame:
    """Averages over the plane per method; where `comparable` beside the published ones, which are of another setting.

    Each seed's plane is averaged first, so that intervals are over seeds. A seed counts only if every cell that any
    method has was measured with it: an average without the hard cells would flatter. `n_cells` is how many there are.
    """
    rows = []
    for measures in (["healed", "utility", "product"], ["efficacy"]):
        attacks = [a for a in shown.rows if ("efficacy" in measures) == (measure_of(shown, a) == "efficacy")]
        own = shown.seeds[shown.seeds["base_attack"].isin(attacks)]
        cells = own[["base_attack", "discovery_rate"]].drop_duplicates()
        for method in order_of(shown, methods) if len(cells) else ():
            group = own[own["method"] == method]
            complete = _complete(group, measures, len(cells))
            found = {"method": method, "over": "healed" if "healed" in measures else "efficacy", "n_cells": len(cells)}
            rows.append(found | {"n_seeds": len(complete)} | _intervals(complete) | {"source": OURS})
    published = [
        {"method": name, "over": "healed", "source": PUBLISHED_SOURCE}
        | dict(zip(("healed_percent", "utility_percent", "product_percent"), values, strict=True))
        for name, values in PUBLISHED.items()
    ]
    has_healed = any(row["over"] == "healed" for row in rows)
    return pd.DataFrame([*rows, *(published if has_healed and shown.comparable else [])])


def _complete(group: pd.DataFrame, measures: list[str], n_cells: int) -> pd.DataFrame:
    """Means over the plane of each seed that has every cell."""
    by_seed = group.groupby("seed")[list(MEASURES)]
    full = by_seed.count()[measures].min(axis=1) == n_cells
    return by_seed.mean()[full]


def _intervals(group: pd.DataFrame) -> dict[str, float]:
    found: dict[str, float] = {}
    for name in MEASURES:
        is_share = name != "efficacy"
        scale, column = (100, f"{name}_percent") if is_share else (1, name)
        interval = mean_interval(scale * group[name])
        low, high = np.clip([interval.low, interval.high], 0 if is_share else None, scale)
        found |= {column: interval.mean, f"{column}_low": float(low), f"{column}_high": float(high)}
    return found
