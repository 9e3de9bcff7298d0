"""ROC curves on logarithmic axes: does the Gaussian score find poisons that the loss does not show?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray
from scipy import stats

from analysis.figures import style
from analysis.reading.points import RETRAIN_AT_BUDGET, chosen_rungs
from analysis.results.analyse import Results
from analysis.results.plane import LARGEST_BUDGET
from analysis.results.verdict import display, percent
from sweeps.schema.records import GOOD
from sweeps.schema.stages import Stage
from unlearn_core.metrics.roc import CURVE_RATES, curve_columns

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 5
LOWEST = 5e-4
"""Foot of the vertical axis; a rate of 0 has no logarithm and stands below it."""
TICKS = (0.001, 0.01, 0.1, 1.0)
SCORES = {"gaussian": ("Gaussian score", "#0072B2"), "membership": ("loss attack", "#D55E00")}
ROC_MODELS = ("none", "oracle", RETRAIN_AT_BUDGET)


class RocCurve(NamedTuple):
    """One model's panel."""

    method: str
    budget: float  # NaN for corrupted model and oracle
    curves: dict[str, pd.DataFrame]  # gaussian and membership: rate, and mean, least, largest over the seeds
    mean_score: float  # mean Gaussian score
    poisons: float  # of all those scenarios together; NaN where unknown


def curves(results: Results, attack: str) -> list[RocCurve]:
    """Corrupted model, oracle, retrain@b and each method at its largest budget up to 10 %.

    Empty for attacks without a Gaussian score, and for records that do not hold the curves.
    """
    columns = [c for family in SCORES for c in curve_columns(family).values()] + ["gaussian_score"]
    if not set(columns) <= set(results.sweep.rows):
        return []
    rows = _models(results, attack, [*columns, "poisons"])
    if rows["gaussian_score"].isna().all():
        return []
    order = [m for m in (*ROC_MODELS, *results.methods) if m in set(rows["method"])]
    return [_curve(method, rows[rows["method"] == method]) for method in order]


def _models(results: Results, attack: str, columns: Sequence[str]) -> pd.DataFrame:
    """Measured models of the confirmation whose attack succeeded, each method at one budget."""
    known = results.references
    known = known[known["method"].isin(ROC_MODELS) & (known["role"] == Stage.CONFIRMATION)]
    known, rows = (table[table["attack"] == attack] for table in (known, results.sweep.rows))
    rows = pd.concat([chosen_rungs(rows, columns), known], ignore_index=True)
    rows = rows[rows["took"].astype(bool) & rows["status"].isin(GOOD)]
    single = rows["method"].isin(["none", "oracle"])
    rows = rows.assign(budget=rows["budget"].mask(single))
    rows = rows[single | (rows["budget"] <= LARGEST_BUDGET + 1e-9)]
    return rows[rows["budget"].isna() | (rows["budget"] == rows.groupby("method")["budget"].transform("max"))]


def _curve(method: str, own: pd.DataFrame) -> RocCurve:
    found = {
        family: pd.DataFrame(
            [
                {"rate": rate, "mean": own[column].mean(), "least": own[column].min(), "largest": own[column].max()}
                for rate, column in curve_columns(family).items()
            ]
        )
        for family in SCORES
    }
    poisons = float(own["poisons"].sum(min_count=len(own)))
    return RocCurve(method, float(own["budget"].iloc[0]), found, float(own["gaussian_score"].mean()), poisons)


def shifted_normal(mean: float, rates: NDArray[np.float64]) -> NDArray[np.float64]:
    """True-positive rates of a score that is N(mean, 1) for poisons and N(0, 1) without: the Gaussian trade-off.

    Source: Dong, Roth and Su, J. R. Statist. Soc. B 84 (2022), arXiv:1905.02383.
    """
    return np.asarray(stats.norm.sf(stats.norm.isf(rates) - mean))


def null_range(poisons: float, rates: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Central 95 % of the rate at which so many scores exceed each quantile, if no model has seen their noise."""
    low, high = (np.asarray(stats.binom.ppf(q, int(poisons), rates)) / poisons for q in (0.025, 0.975))
    return low, high


def figure(attack: str, shown: Sequence[RocCurve]) -> Figure:
    """One panel per model."""
    columns = min(COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    made, axes = plt.subplots(rows, columns, figsize=(max(6.0, 2.15 * columns), 2.0 * rows + 1.1), squeeze=False)
    corrupted = next((c for c in shown if c.method == "none"), None)
    for i, ax in enumerate(axes.flat):
        ax.set_visible(i < len(shown))
        if i < len(shown):
            draw(ax, shown[i], corrupted, left=i % columns == 0, foot=i + columns >= len(shown))
    made.suptitle(attack, fontsize=11)
    made.legend(handles=list(_legend(shown)), loc="outside lower center", ncols=3, frameon=False)
    return made


def draw(ax: Axes, shown: RocCurve, corrupted: RocCurve | None, *, left: bool, foot: bool) -> None:
    """Draw one panel; shades reach from the least to the largest seed, thin lines are the corrupted model's.

    No t intervals: with few seeds they reach below 0, which these axes do not have.
    """
    dense = np.geomspace(CURVE_RATES[0], CURVE_RATES[-1], 60)
    ax.set(xscale="log", yscale="log", xlim=(CURVE_RATES[0], CURVE_RATES[-1]), ylim=(LOWEST, 1.15))
    if math.isfinite(shown.poisons):
        ax.fill_between(dense, *null_range(shown.poisons, dense), color=style.BAND, lw=0, zorder=1)
    ax.plot(dense, dense, color=style.GREY, lw=1, zorder=2)
    if shown.method == "none":
        ax.plot(dense, shifted_normal(shown.mean_score, dense), color=style.BLACK, lw=1, ls=":", zorder=3)
    elif corrupted is not None:
        for family, (_, colour) in SCORES.items():
            own = corrupted.curves[family]
            ax.plot(own["rate"], own["mean"], color=colour, lw=0.8, ls="--", alpha=0.7, zorder=3)
    for family, (_, colour) in SCORES.items():
        own = shown.curves[family]
        ax.fill_between(own["rate"], own["least"].clip(lower=LOWEST), own["largest"], color=colour, alpha=0.18, lw=0)
        ax.plot(own["rate"], own["mean"].clip(lower=LOWEST / 2), color=colour, lw=1.4, zorder=4)
    _ticks(ax, left=left, foot=foot)
    budget = f" at {percent(shown.budget)}" if math.isfinite(shown.budget) else ""
    ax.set_title(display(shown.method) + budget, fontsize=9)


def _ticks(ax: Axes, *, left: bool, foot: bool) -> None:
    """Powers of ten in per cent; labels at the left and at the foot only."""
    words = [percent(tick) for tick in TICKS]
    ax.set_xticks(TICKS[:-1], words[:-1] if foot else [""] * (len(TICKS) - 1))
    ax.set_yticks(TICKS, words if left else [""] * len(TICKS))
    ax.minorticks_off()
    if left:
        ax.set_ylabel("TPR")
    if foot:
        ax.set_xlabel("FPR")


def _legend(shown: Sequence[RocCurve]) -> Iterator[Line2D | Patch]:
    for name, colour in SCORES.values():
        yield Line2D([], [], color=colour, lw=1.4, label=f"{name}; range over seeds")
    yield Line2D([], [], color=style.SLATE, lw=0.8, ls="--", label="the same of the corrupted model")
    yield Line2D([], [], color=style.GREY, lw=1, label="chance; exact null of the Gaussian score")
    if any(math.isfinite(c.poisons) for c in shown):
        yield Patch(color=style.BAND, label="95 % of that null for as many poisons")
    if any(c.method == "none" for c in shown):
        yield Line2D([], [], color=style.BLACK, lw=1, ls=":", label="scores N(mean, 1)")
