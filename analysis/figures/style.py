"""One look for all figures: colour-blind-safe colours (Okabe and Ito), a marker per method, sober axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.ticker import FuncFormatter

from analysis.reading.points import RETRAIN_AT_BUDGET, Axis

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8700F0", "#4B2D00", "#000F78", "#78004B",
)  # fmt: skip
"""Okabe-Ito without black (retrain@b) and yellow (vanishes on white), then the colours farthest from all before as
people see them with and without colour blindness. As many as markers: no two of ten methods share either."""
MARKERS = (
    ("o", "circle"), ("s", "square"), ("^", "triangle-up"), ("v", "triangle-down"), ("P", "cross"), ("*", "star"),
    ("X", "x"), (">", "triangle-right"), ("<", "triangle-left"), ("p", "pentagon"),
)  # fmt: skip
"""matplotlib's and plotly's names of the same markers."""
NARROW = {"P": 1.6, "*": 2.0, "X": 1.6}
"""How much larger an area these markers need so that a hollow one shows its hole."""
EDGE = 0.2
"""Width of a marker's edge, in points, as a share of the square root of its area: the hole shrinks with the marker."""
BLACK, GREY, BAND, SLATE = "#000000", "#8a8a8a", "#d9d9d9", "#6b7c8c"
WHITE = "#ffffff"
RC: dict[Any, Any] = {
    "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "legend.fontsize": 8, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#ececec", "axes.axisbelow": True,
    "figure.constrained_layout.use": True, "pdf.fonttype": 42, "savefig.dpi": 150, "text.parse_math": False,
}  # fmt: skip
"""Labels are data, not formulas: `$` in a name must not start mathtext. Fonts are embedded as TrueType for editors."""


class Look(NamedTuple):
    """Colour and marker of one method; `faint` methods share theirs, and are named only where it matters."""

    colour: str
    marker: str
    symbol: str
    faint: bool = False


def looks(methods: Sequence[str], highlighted: Sequence[str] | None = None) -> dict[str, Look]:
    """A look per method, distinct for up to 10 highlighted ones (by default all); retrain@b is a black diamond."""
    told_apart = methods if highlighted is None else highlighted
    chosen = dict.fromkeys(methods, Look(SLATE, "o", "circle", faint=True))
    for i, method in enumerate(told_apart):
        chosen[method] = Look(COLOURS[i % len(COLOURS)], *MARKERS[i % len(MARKERS)])
    return chosen | {RETRAIN_AT_BUDGET: Look(BLACK, "D", "diamond")}


def scatter(ax: Axes, points: pd.DataFrame, look: Look, *, alpha: float = 1.0, zorder: float = 4.0) -> None:
    """Markers at columns `x` and `y`, of area `size` in square points, hollow unless `eligible`."""
    size = points["size"].to_numpy(dtype=float) * NARROW.get(look.marker, 1.0)
    fill = [look.colour if full else WHITE for full in points["eligible"]]
    options: dict[str, Any] = {"marker": look.marker, "edgecolors": look.colour, "alpha": alpha, "zorder": zorder}
    edges = np.minimum(1.1, EDGE * size**0.5).tolist()
    ax.scatter(points["x"], points["y"], s=size, c=fill, linewidths=edges, **options)


def others(looks: dict[str, Look]) -> str:
    """What a legend calls the faint methods; "" without any."""
    n = sum(look.faint for look in looks.values())
    return f"{n} other methods" if n else ""


def use() -> None:
    """Draw without a display, in this look."""
    mpl.use("agg")
    mpl.rcParams.update(RC)


def percent_axis(ax: Axes, axis: Axis) -> None:
    """Label the horizontal axis; shares are shown in per cent."""
    ax.set_xlabel(axis.label)
    if axis.is_share:
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))


def efficacy_limits(lowest: float) -> tuple[float, float]:
    """Vertical range that shows 0 to 1 and, of what lies below, at most another half."""
    return (max(-0.5, min(-0.05, lowest - 0.05)) if math.isfinite(lowest) else -0.05, 1.08)
