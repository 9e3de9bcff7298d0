"""Three-way view: efficacy against utility gap, with the budget as the size of the marker."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd

from analysis.figures import style
from analysis.figures.front import draw_band
from analysis.reading.points import RETRAIN_AT_BUDGET
from analysis.results.analyse import Results
from analysis.statistics.intervals import NOTHING, Interval
from analysis.statistics.pareto import nondominated

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMALLEST, LARGEST = 14.0, 110.0
"""Marker areas of the smallest and largest budget, in square points."""


class TradeoffCurve(NamedTuple):
    """Points of one attack in all three dimensions."""

    attack: str
    points: pd.DataFrame  # unlearners and retrain@b by budget, with `size` and `on_front`
    tolerance: float
    band: Interval


def curve(results: Results, attack: str) -> TradeoffCurve:
    """Numbers of one panel; `on_front` is the front of (cost, efficacy, utility gap) over unlearners."""
    own = results.points[results.points["attack"] == attack].dropna(subset=["efficacy", "utility_gap"])
    own = own.sort_values(["method", "budget"], ignore_index=True)
    costs = np.column_stack([own[results.axis.column], -own["efficacy"], own["utility_gap"]]).astype(float)
    costs[(own["method"] == RETRAIN_AT_BUDGET).to_numpy()] = np.nan
    span = np.ptp(own["budget"].to_numpy(dtype=float)) if len(own) else 0.0
    rank = (own["budget"] - own["budget"].min()) / (span or 1.0)
    own = own.assign(on_front=nondominated(costs), size=SMALLEST + (LARGEST - SMALLEST) * rank)
    return TradeoffCurve(attack, own, results.tolerance, results.bands.get(attack, NOTHING))


def draw(ax: Axes, shown: TradeoffCurve, looks: dict[str, style.Look]) -> None:
    """Draw one panel: faint = dominated, hollow = outside the tolerance (right of the line) or seeds lost."""
    draw_band(ax, shown.band)
    ax.axvline(shown.tolerance, color=style.GREY, lw=1, ls=":")
    for method, own in shown.points.groupby("method", sort=False):
        look = looks[str(method)]
        if not look.faint:
            ax.plot(own["utility_gap"], own["efficacy"], color=look.colour, lw=0.7, alpha=0.4, zorder=2)
        full = own["on_front"] | (own["method"] == RETRAIN_AT_BUDGET)
        own = own.assign(x=own["utility_gap"], y=own["efficacy"], size=own["size"] * (0.3 if look.faint else 1.0))
        for part, alpha in ((own[~full], 0.3), (own[full], 0.9)):
            style.scatter(ax, part, look, alpha=alpha, zorder=3.0)
    ax.set_title(shown.attack)
    ax.set_xlabel("utility gap (oracle accuracy - accuracy)")
    ax.set_ylabel("efficacy")
    ax.set_ylim(*style.efficacy_limits(float(shown.points["efficacy"].min())))
