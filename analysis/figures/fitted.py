"""A figure at the width of a column, for a notebook or a paper; the report's own are as wide as they need."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure

from analysis.figures import style
from analysis.figures.panels import GRIDS, curves, legend, with_results
from analysis.results.analyse import Results
from unlearn_core import checks
from unlearn_core.checks import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL = 2.6
"""Least width of a panel in inches, if the figure is as wide."""
ASPECT = 0.8
"""Height of a panel as a share of its width."""
COLUMN, LINE = 1.6, 0.14
"""Width of a column of the legend and height of its lines, in inches."""
LETTERS = 24
"""Length at which a name in the legend is broken."""
SMALL = {"font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7}


def draw(results: Results, kind: str, attacks: Sequence[str], width: float) -> Figure:
    """One panel per attack, side by side where they find room, and a legend below.

    Args:
        results: What is shown.
        kind: Front, tradeoff or tuning_gap.
        attacks: Whose panels; those without results have none.
        width: Of the figure, in inches.

    Returns:
        A figure that pyplot does not know, so that a notebook shows it once. The settings of matplotlib are as before.

    Raises:
        InputError: for an unknown kind, a width that is no positive number, or attacks without any results.
    """
    checks.one_of("figure", kind, tuple(GRIDS))
    checks.positive(width=width)
    shown = curves(results, kind, [attack for attack in attacks if attack in with_results(results)])
    if not shown:
        raise InputError(f"figure {kind!r}: nothing was measured under {', '.join(attacks)}")
    looks = style.looks(results.methods, results.highlighted)
    with mpl.rc_context(style.RC | SMALL):
        return _figure(shown, kind, looks, width)


def _figure(shown: Sequence[Any], kind: str, looks: dict[str, style.Look], width: float) -> Figure:
    handles = legend(looks, kind)
    for handle in handles:
        handle.set_label(textwrap.fill(str(handle.get_label()), LETTERS))
    below = max(1, int(width // COLUMN))
    columns = max(1, min(len(shown), int(width // PANEL)))
    rows = math.ceil(len(shown) / columns)
    lines = sum(str(handle.get_label()).count("\n") + 1 for handle in handles)
    figure = Figure(figsize=(width, rows * ASPECT * width / columns + LINE * math.ceil(lines / below) + LINE))
    axes: list[Axes] = list(figure.subplots(rows, columns, squeeze=False).flat)
    for ax, curve in zip(axes, shown, strict=False):
        GRIDS[kind].draw(ax, curve, looks)
    for ax in axes[len(shown) :]:
        ax.set_visible(False)
    figure.legend(handles=handles, loc="outside lower center", ncols=below, frameon=False)
    return figure
