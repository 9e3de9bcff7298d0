"""Primary metric and test accuracy as they are, per method and budget, with the corrupted model and the oracle."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import NDArray

from analysis.figures import style
from analysis.reading.measurements import chosen
from analysis.reading.points import CASE, RETRAIN_AT_BUDGET, VALUES
from analysis.results.analyse import Results
from analysis.results.verdict import display, percent
from analysis.statistics.intervals import Interval, mean_interval
from sweeps.schema.stages import Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METHODS_IN_A_ROW = 13
LINES = {"none": ("no unlearning (corrupted model)", "#D55E00", "--"), "oracle": ("oracle (retrained)", "#009E73", "-")}
CUT = 1.5
"""Marks further from both lines than so many times their distance are put at the edge, unless the metric is a share."""


class Panel(NamedTuple):
    """One metric of all methods."""

    label: str
    points: pd.DataFrame  # method, budget, mean, low, high, n_counted, n_seeds: over the confirmation scenarios
    lines: dict[str, Interval]  # none and oracle, over the same scenarios


class ValueCurve(NamedTuple):
    """What the figure of one attack shows."""

    attack: str
    methods: tuple[str, ...]  # retrain@b, then the unlearners
    budgets: tuple[float, ...]
    panels: tuple[Panel, ...]  # the attack's own metric (of Gaussian poisons also what is published), test accuracy


def curve(results: Results, attack: str) -> ValueCurve:
    """Numbers of one attack's figure; a failed seed is in no mean."""
    seeds = results.seeds[(results.seeds["attack"] == attack) & results.seeds["took"]]
    present = set(seeds["method"])
    metric = str(results.references.loc[results.references["attack"] == attack, "primary_metric"].iloc[0])
    columns = {"primary_value": metric, "test_accuracy": "test_accuracy"}
    published = metric.replace("gaussian_score", "gaussian_tpr_exact")  # what papers show of these poisons
    if published != metric and published in results.sweep.rows:
        columns = {"primary_value": metric, published: published, "test_accuracy": "test_accuracy"}
    return ValueCurve(
        attack=attack,
        methods=tuple(m for m in (RETRAIN_AT_BUDGET, *results.methods) if m in present),
        budgets=tuple(sorted(seeds["budget"].unique())),
        panels=tuple(_panel(results, seeds, attack, column, name) for column, name in columns.items()),
    )


def _panel(results: Results, seeds: pd.DataFrame, attack: str, column: str, name: str) -> Panel:
    seeds = seeds if column in VALUES else _with_metric(results, seeds, column)
    rows = []
    for (method, budget), own in seeds.groupby(["method", "budget"], sort=False):
        found, counts = mean_interval(own[column]), {"n_counted": int(own["counted"].sum())}
        total = int(own["n_scenarios"].iloc[0])
        rows.append({"method": method, "budget": budget, **found._asdict(), **counts, "n_seeds": total})
    known = results.references
    known = known[(known["attack"] == attack) & (known["role"] == Stage.CONFIRMATION) & known["took"]]
    lines = {line: mean_interval(known.loc[known["method"] == line, column]) for line in LINES}
    label = {"gaussian_tpr_exact": "TPR at 1 % FPR"}.get(name, name.replace("_", " "))
    return Panel(label, pd.DataFrame(rows), lines)


def _with_metric(results: Results, seeds: pd.DataFrame, column: str) -> pd.DataFrame:
    """`seeds` with a metric beside the results, of those that count."""
    rivals = results.references[results.references["method"] == RETRAIN_AT_BUDGET]
    known = pd.concat([chosen(results.sweep), rivals[rivals["role"] == Stage.CONFIRMATION]], ignore_index=True)
    means = known.groupby([*CASE, "seed"])[column].mean()
    joined = seeds.join(means, on=[*CASE, "seed"])
    return joined.assign(**{column: joined[column].where(joined["counted"])})


def figure(shown: ValueCurve) -> Figure:
    """Panels below each other, methods across; many methods continue in a further block."""
    blocks = math.ceil(len(shown.methods) / METHODS_IN_A_ROW)
    across = math.ceil(len(shown.methods) / blocks)
    rows = len(shown.panels)
    size = (max(6.5, 1.2 + 0.66 * across), blocks * (1.55 * rows + 0.75) + 0.9)
    made, axes = plt.subplots(rows * blocks, 1, figsize=size, squeeze=False)
    for i, ax in enumerate(axes.flat):
        methods = shown.methods[(i // rows) * across :][:across]
        draw(ax, shown.panels[i % rows], methods, shown.budgets)
        ax.set_xlim(-0.5, across - 0.5)
        names = [display(m) for m in methods] if i % rows == rows - 1 else []
        ax.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    made.suptitle(shown.attack, fontsize=11)
    made.align_ylabels(list(axes.flat))
    made.legend(handles=_legend(shown), loc="outside lower center", ncols=int(size[0] / 2), frameon=False)
    return made


def draw(ax: Axes, panel: Panel, methods: Sequence[str], budgets: Sequence[float]) -> None:
    """Draw one metric of some methods: per method one mark for each budget, from light to dark.

    Hollow: seeds failed or missing; crosses at the foot: none counted; triangles at an edge: beyond it.
    """
    for i in range(0, len(methods), 2):
        ax.axvspan(i - 0.5, i + 0.5, color="#f4f4f4", lw=0, zorder=0)
    for line, (_, colour, dash) in LINES.items():
        value = panel.lines[line]
        ax.axhspan(value.low, value.high, color=colour, alpha=0.13, lw=0, zorder=1)
        ax.axhline(value.mean, color=colour, ls=dash, lw=1.2, zorder=2)
    low, high = _limits(panel)
    ax.set_ylim(low, high)
    places = dict(zip(budgets, np.linspace(-0.3, 0.3, len(budgets)) if len(budgets) > 1 else [0.0], strict=True))
    for budget, colour in _colours(budgets).items():
        own = panel.points[(panel.points["budget"] == budget) & panel.points["method"].isin(methods)]
        x = own["method"].map(list(methods).index).to_numpy(dtype=float) + places[budget]
        _marks(ax, own, x, colour)
    ax.set_ylabel(panel.label)
    ax.grid(visible=False, axis="x")


def _marks(ax: Axes, own: pd.DataFrame, x: NDArray[np.float64], colour: str) -> None:
    low, high = ax.get_ylim()
    mean, lost = own["mean"].to_numpy(dtype=float), own["mean"].isna().to_numpy()
    ax.vlines(x, own["low"], own["high"], color=colour, lw=1, alpha=0.6, zorder=3)
    fill = np.where(own["n_counted"] == own["n_seeds"], colour, "#ffffff")
    for marker, which in (("o", (mean >= low) & (mean <= high)), ("^", mean > high), ("v", mean < low)):
        at = np.clip(mean[which], low, high)
        rim: dict[str, Any] = {"edgecolors": colour, "linewidths": 0.9, "clip_on": False}
        ax.scatter(x[which], at, s=17, marker=marker, c=fill[which], zorder=4, **rim)
    ax.scatter(x[lost], np.full(lost.sum(), low), s=16, marker="x", color=colour, linewidths=0.9, zorder=4)


def _limits(panel: Panel) -> tuple[float, float]:
    """Vertical range of the means and both lines; of a metric that is no share, no further than CUT allows."""
    lines = np.array([interval.mean for interval in panel.lines.values()])
    values = np.append(panel.points["mean"].to_numpy(dtype=float), lines)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = values.min(), values.max()
    if np.isfinite(lines).all() and np.abs(values).max() > 1:
        reach = CUT * float(np.ptp(lines))
        low, high = max(low, lines.min() - reach), min(high, lines.max() + reach)
    room = 0.12 * (high - low) or 0.1
    return float(low - room), float(high + room)


def _colours(budgets: Sequence[float]) -> dict[float, str]:
    """From light to dark with the budget."""
    shades = mpl.colormaps["viridis_r"](np.linspace(0.25, 1.0, len(budgets))) if len(budgets) > 1 else [(0, 0, 0, 1)]
    return {budget: mpl.colors.to_hex(shade) for budget, shade in zip(budgets, shades, strict=True)}


def _legend(shown: ValueCurve) -> list[Line2D | Patch]:
    dots = [
        Line2D([], [], color=colour, marker="o", ls="", ms=4.5, label=f"budget {percent(budget)}")
        for budget, colour in _colours(shown.budgets).items()
    ]
    lines = [Line2D([], [], color=colour, ls=dash, label=name) for name, colour, dash in LINES.values()]
    points = shown.panels[0].points
    notes = []
    if (points["n_counted"] < points["n_seeds"]).any():
        notes.append(Line2D([], [], color=style.GREY, marker="o", mfc="#ffffff", ls="", ms=4.5, label="seeds lost"))
    if points["mean"].isna().any():
        notes.append(Line2D([], [], color=style.GREY, marker="x", ls="", ms=4.5, label="all seeds lost"))
    return [*dots, *lines, *notes]
