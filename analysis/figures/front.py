"""Efficacy against cost: chosen configurations, their Pareto front, retrain@b and the noise band."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.figures import style
from analysis.reading.points import RETRAIN_AT_BUDGET, Axis
from analysis.results.analyse import Results
from analysis.statistics.intervals import NOTHING, Interval
from analysis.statistics.pareto import nondominated, staircase

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CLOUD_LIMIT = 400
"""Tuning proposals drawn per attack; the non-dominated ones always are."""

ROOM = (0.2, 0.06)
"""Distance that names keep from each other: share of the largest cost, efficacy."""


SAME = (0.02, 0.02)
"""Cell in which markers count as at the same point: share of the largest cost, efficacy."""
SHRINK = 0.5
"""Area of a marker relative to the one below it at the same point."""


class FrontCurve(NamedTuple):
    """What a front figure shows for one attack."""

    attack: str
    axis: Axis
    points: pd.DataFrame  # unlearners: columns of `points.points`, plus `x` and `on_front`
    retrain: pd.DataFrame  # retrain@b, likewise (it has its own front)
    outline: NDArray[np.float64]  # corners of the front, (k, 2)
    band: Interval  # efficacy of the second oracle
    cloud: pd.DataFrame  # tuning proposals, with `x`: measured on tuning seeds, shown as background


def curve(results: Results, attack: str, axis: Axis | None = None) -> FrontCurve:
    """Numbers of the front of one attack; the front is over eligible unlearners (see `points.points`)."""
    axis = axis or results.axis
    own = results.points[results.points["attack"] == attack]
    own = own.assign(x=own[axis.column]).dropna(subset=["x", "efficacy"])
    shown = own[own["method"] != RETRAIN_AT_BUDGET].reset_index(drop=True)
    allowed = shown["eligible"].to_numpy(dtype=bool)
    costs = np.column_stack([shown["x"], -shown["efficacy"]]).astype(float)
    costs[~allowed] = math.nan
    retrain = own[own["method"] == RETRAIN_AT_BUDGET].sort_values("x").assign(on_front=True)
    until = float(own["x"].max()) if len(own) else 1.0
    inside = shown[allowed]
    return FrontCurve(
        attack=attack,
        axis=axis,
        points=shown.assign(on_front=nondominated(costs)),
        retrain=retrain,
        outline=staircase(cost=inside["x"], gain=inside["efficacy"], until=until),
        band=results.bands.get(attack, NOTHING),
        cloud=_cloud(results, attack, axis),
    )


def _cloud(results: Results, attack: str, axis: Axis) -> pd.DataFrame:
    own = results.proposals[results.proposals["attack"] == attack]
    own = own.assign(x=own[axis.column]).dropna(subset=["x", "efficacy"])
    if len(own) <= CLOUD_LIMIT:
        return own
    best = nondominated(np.column_stack([own["x"], -own["efficacy"]]))
    rest = own[~best]
    return pd.concat([own[best], rest.sample(min(len(rest), CLOUD_LIMIT), random_state=0)]).head(2 * CLOUD_LIMIT)


def draw(ax: Axes, shown: FrontCurve, looks: dict[str, style.Look]) -> None:
    """Draw one front; hollow markers lie outside the tolerance or lack seeds.

    At the same point each marker is smaller than the one below it, so that none hides another.
    """
    points, retrain = _sized(shown, looks)
    draw_band(ax, shown.band)
    ax.scatter(shown.cloud["x"], shown.cloud["efficacy"], s=4, color=style.GREY, alpha=0.25, linewidths=0, zorder=1)
    ax.plot(shown.outline[:, 0], shown.outline[:, 1], color=style.BLACK, lw=1.2, alpha=0.6, zorder=2)
    if len(retrain):
        _scatter(ax, retrain, looks[RETRAIN_AT_BUDGET], line="--")
    for method, own in points.groupby("method", sort=False):
        _scatter(ax, own, looks[str(method)])
    _name_faint(ax, shown.points, looks)
    ax.set_title(shown.attack)
    ax.set_ylabel("efficacy")
    ax.set_ylim(*style.efficacy_limits(float(pd.concat([shown.points, shown.retrain])["efficacy"].min())))
    style.percent_axis(ax, shown.axis)


def _sized(shown: FrontCurve, looks: dict[str, style.Look]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`points` and `retrain` with `size`, the marker's area; retrain@b is drawn first, hence largest.

    Equal markers of a method at the same point have the same size: rings within rings would look filled.
    """
    both = pd.concat([shown.retrain, shown.points], keys=["retrain", "points"])
    faint = both["method"].map(lambda method: looks[str(method)].faint).astype(bool)
    cells = [(both["x"] / (SAME[0] * both["x"].max())).round(), (both["efficacy"] / SAME[1]).round()]
    kinds = both["method"].astype(str) + both["eligible"].astype(str)
    groups = kinds.groupby([faint, *(cell.rename(None) for cell in cells)])
    below = groups.transform(lambda kind: pd.factorize(kind)[0]).astype(int)
    both = both.assign(size=np.where(faint, 10.0, 30.0 * SHRINK ** below.clip(upper=3)))
    known = both.index.get_level_values(0)
    return both[known == "points"], both[known == "retrain"]


def _scatter(ax: Axes, own: pd.DataFrame, look: style.Look, line: str = "") -> None:
    own = own.assign(y=own["efficacy"])
    if line:
        ax.plot(own["x"], own["y"], line, color=look.colour, lw=1.2, zorder=3)
    sure = own[own["on_front"]]  # intervals of all points would hide each other; the ladder shows them one by one
    ax.vlines(sure["x"], sure["efficacy_low"], sure["efficacy_high"], color=look.colour, lw=1, alpha=0.5, zorder=2)
    style.scatter(ax, own, look, zorder=3.0 if look.faint else 4.0)


def _name_faint(ax: Axes, points: pd.DataFrame, looks: dict[str, style.Look]) -> None:
    """Name methods on the front that the legend does not, at their best point there, where a name finds room."""
    faint = points[points["on_front"] & points["method"].map(lambda method: looks[method].faint).astype(bool)]
    width = float(points["x"].max()) if len(points) else 0.0
    taken: list[tuple[float, float]] = []
    for row in faint.sort_values("efficacy", ascending=False).drop_duplicates("method").to_dict("records"):
        x, y = float(row["x"]), float(row["efficacy"])
        if any(abs(x - other) < ROOM[0] * width and abs(y - height) < ROOM[1] for other, height in taken):
            continue
        taken.append((x, y))
        place: dict[str, Any] = {"xytext": (4, -4), "textcoords": "offset points", "va": "top", "fontsize": 7}
        ax.annotate(str(row["method"]), (x, y), color=style.SLATE, zorder=5, **place)


def draw_band(ax: Axes, band: Interval) -> None:
    """The oracle-against-oracle noise band; a point inside is like an oracle."""
    if math.isfinite(band.low):
        ax.axhspan(band.low, min(band.high, 1.0), color=style.BAND, alpha=0.7, lw=0, zorder=0)
    if math.isfinite(band.mean):
        ax.axhline(band.mean, color=style.GREY, lw=1, zorder=0)
