"""Efficacy against budget, one panel per method with its band, retrain@b in each for comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from analysis.figures import style
from analysis.figures.front import draw_band
from analysis.reading.points import RETRAIN_AT_BUDGET
from analysis.results.analyse import Results
from analysis.statistics.intervals import NOTHING, Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class LadderCurve(NamedTuple):
    """One method under one attack."""

    method: str
    own: pd.DataFrame  # columns of `points.points`, by budget
    retrain: pd.DataFrame
    band: Interval
    lowest: float  # of all methods, so that panels share their vertical axis


def curves(results: Results, attack: str) -> list[LadderCurve]:
    """One curve per method that has results under `attack`."""
    points = results.points[results.points["attack"] == attack].dropna(subset="efficacy").sort_values("budget")
    retrain = points[points["method"] == RETRAIN_AT_BUDGET]
    lowest, band = float(points["efficacy"].min()), results.bands.get(attack, NOTHING)
    owns = [(method, points[points["method"] == method]) for method in results.methods]
    return [LadderCurve(method, own, retrain, band, lowest) for method, own in owns if len(own)]


def draw(ax: Axes, shown: LadderCurve, looks: dict[str, style.Look]) -> None:
    """Draw one panel: lines are means over seeds, shades their 95 % intervals; hollow = not eligible."""
    draw_band(ax, shown.band)
    for own, look, line in (
        (shown.retrain, looks[RETRAIN_AT_BUDGET], "--"),
        (shown.own, looks[shown.method], "-"),
    ):
        own = own.assign(x=100 * own["budget"], y=own["efficacy"], size=18.0)
        if line == "-":
            ax.fill_between(own["x"], own["efficacy_low"], own["efficacy_high"], color=look.colour, alpha=0.18, lw=0)
        ax.plot(own["x"], own["y"], line, color=look.colour, lw=1.3)
        style.scatter(ax, own, look)
    ax.set_title(shown.method, fontsize=9)
    ax.set_ylim(*style.efficacy_limits(shown.lowest))
