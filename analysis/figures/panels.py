"""Lays panels out on figures, adds one legend, and writes PNG and PDF."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.figures import front, ladder, plane, roc, style, tradeoff, tuning_gap, values
from analysis.figures.save import save
from analysis.reading.points import RETRAIN_AT_BUDGET
from analysis.results.analyse import Results
from analysis.results.verdict import display

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KINDS = ("front", "tradeoff", "values", "ladder", "roc", "tuning_gap", "plane")
GRIDS: dict[str, Any] = {"front": front, "tradeoff": tradeoff, "tuning_gap": tuning_gap}
"""Kinds of figures with one panel per attack; the others exist once per attack or once per sweep."""
PER_PAGE = 6
"""Attacks on one figure; more make further figures."""
LADDER_COLUMNS = 5
PLANE_COLUMNS = 6
MOST_TICKS = 6


def write_figures(results: Results, folder: Path) -> dict[str, list[Path]]:
    """Draw every figure into `folder`; returns the PNG files by kind (each has a PDF beside it)."""
    style.use()
    folder.mkdir(parents=True, exist_ok=True)
    looks = style.looks(results.methods, results.highlighted)
    usable = with_results(results)
    written: dict[str, list[Path]] = {kind: [] for kind in KINDS}
    for kind in GRIDS:
        shown = curves(results, kind, usable)
        for page, start in enumerate(range(0, len(shown), PER_PAGE), start=1):
            figure = draw_grid(shown[start : start + PER_PAGE], kind, looks)
            name = kind if len(shown) <= PER_PAGE else f"{kind}_{page}"
            written[kind].append(save(figure, folder / name))
    for number, attack in enumerate(usable, start=1):
        for kind, figure in _figures_of(results, attack, looks):
            written[kind].append(save(figure, folder / f"{kind}_{number}_{slug(attack)}"))
    planes = plane.curves(results.plane, results.methods) if results.plane else {}
    written["plane"] = [save(_plane_figure(panels), folder / f"plane_{name}") for name, panels in planes.items()]
    return written


def with_results(results: Results) -> list[str]:
    """The attacks that are shown and have anything to draw."""
    return [a for a in results.shown if results.points.loc[results.points["attack"] == a, "efficacy"].notna().any()]


def curves(results: Results, kind: str, attacks: Sequence[str]) -> list[Any]:
    """The numbers of each attack's panel; no panel for an attack without tuned pairs where those are shown."""
    shown = [GRIDS[kind].curve(results, attack) for attack in attacks]
    return [c for c in shown if kind != "tuning_gap" or len(c.pairs)]


def _figures_of(results: Results, attack: str, looks: dict[str, style.Look]) -> Iterator[tuple[str, Figure]]:
    """The figures that show one attack each, by kind."""
    yield "values", values.figure(values.curve(results, attack))
    steps = ladder.curves(results, attack)
    if steps:
        yield "ladder", _ladder_figure(attack, steps, looks)
    rates = roc.curves(results, attack)
    if rates:
        yield "roc", roc.figure(attack, rates)


def slug(text: str) -> str:
    """A safe piece of a file name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "attack"


def draw_grid(shown: Sequence[Any], kind: str, looks: dict[str, style.Look]) -> Figure:
    """One panel per attack, at most three side by side, and a legend below."""
    draw = GRIDS[kind].draw
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(3.9 * columns, 3.3 * rows + 0.5), squeeze=False)
    for ax, curve in zip(axes.flat, shown, strict=False):
        draw(ax, curve, looks)
    for ax in axes.flat[len(shown) :]:
        ax.set_visible(False)
    figure.legend(handles=legend(looks, kind), loc="outside lower center", ncols=min(5, 2 * columns), frameon=False)
    return figure


def _ladder_figure(attack: str, curves: Sequence[ladder.LadderCurve], looks: dict[str, style.Look]) -> Figure:
    rows = math.ceil(len(curves) / LADDER_COLUMNS)
    columns = math.ceil(len(curves) / rows)
    figure, axes = plt.subplots(rows, columns, figsize=(max(5.0, 2.1 * columns), 1.9 * rows + 1.1), squeeze=False)
    for ax, curve in zip(axes.flat, curves, strict=False):
        ladder.draw(ax, curve, looks)
    for ax in axes.flat[len(curves) :]:
        ax.set_visible(False)
    _label(list(axes.flat)[: len(curves)], columns, _budgets(curves))
    figure.suptitle(attack, fontsize=11)
    handles = legend({RETRAIN_AT_BUDGET: looks[RETRAIN_AT_BUDGET]}, "ladder")
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    return figure


def _budgets(curves: Sequence[ladder.LadderCurve]) -> list[float]:
    """All budgets in per cent, rising."""
    return sorted({100 * budget for curve in curves for budget in (*curve.own["budget"], *curve.retrain["budget"])})


def _plane_figure(panels: Sequence[plane.PlaneCurve]) -> Figure:
    """Heat maps of equal cells, so that a method's weak spot is in the same place everywhere."""
    columns = min(PLANE_COLUMNS, len(panels))
    rows = math.ceil(len(panels) / columns)
    n_attacks, n_rates = panels[0].values.shape
    width, height = max(1.5, 0.42 * n_rates), 0.30 * n_attacks + 0.55
    figure, axes = plt.subplots(
        rows, columns, figsize=(width * columns + 2.4, height * rows + 0.8), sharex=True, sharey=True, squeeze=False
    )
    images = [plane.draw(ax, panel) for ax, panel in zip(axes.flat, panels, strict=False)]
    for ax in axes.flat[len(panels) :]:
        ax.set_visible(False)
    for ax in list(axes.flat)[: len(panels)][-columns:]:
        ax.tick_params(labelbottom=True)
    figure.supxlabel(plane.notes(panels), fontsize=9)
    bar = figure.colorbar(images[0], ax=axes, shrink=min(1.0, 3 / rows), aspect=15)
    bar.set_label(plane.title(panels[0].measure))
    bar.ax.yaxis.set_major_formatter(lambda value, _: plane.number(value, panels[0].measure))
    return figure


def _label(axes: Sequence[Axes], columns: int, ladder_percent: Sequence[float]) -> None:
    """Axis labels at the left and at the lowest panel of each column, ticks at the budgets.

    The panels have the same limits without sharing axes: matplotlib then asks all of them about each of them.
    """
    for i, ax in enumerate(axes):
        if ladder_percent:
            room = 0.05 * (ladder_percent[-1] - ladder_percent[0]) or 1.0
            ax.set_xlim(ladder_percent[0] - room, ladder_percent[-1] + room)
        if 0 < len(ladder_percent) <= MOST_TICKS:
            ax.set_xticks(ladder_percent)
        ax.tick_params(labelbottom=i + columns >= len(axes), labelleft=i % columns == 0)
    for ax in axes[::columns]:
        ax.set_ylabel("efficacy")
    for ax in axes[-columns:]:
        ax.set_xlabel("budget, %")


def legend(looks: dict[str, style.Look], kind: str) -> list[Line2D | Patch]:
    """Methods, then what lines, fills and shades mean in this kind of figure."""
    named = [m for m in looks if not looks[m].faint and (m != RETRAIN_AT_BUDGET or kind != "tuning_gap")]
    handles: list[Line2D | Patch] = [
        Line2D(
            [], [], color=looks[m].colour, marker=looks[m].marker, ls="--" if m == RETRAIN_AT_BUDGET else "",
            ms=5, lw=1.2, label=display(m),
        )
        for m in named
    ]  # fmt: skip
    if style.others(looks):
        handles.append(Line2D([], [], color=style.SLATE, marker="o", ls="", ms=3, label=style.others(looks)))
    if kind == "tuning_gap":
        return handles
    handles.append(Patch(color=style.BAND, label="noise band: oracle against oracle"))
    if kind == "front":
        handles.append(Line2D([], [], color=style.BLACK, alpha=0.6, label="Pareto front"))
        handles.append(Line2D([], [], color=style.GREY, marker=".", ls="", ms=4, label="tuning proposals"))
    if kind == "tradeoff":
        handles.append(Line2D([], [], color=style.GREY, ls=":", label="utility tolerance"))
        handles.append(Line2D([], [], color=style.GREY, marker="o", ls="", ms=8, label="larger = larger budget"))
        handles.append(Line2D([], [], color=style.GREY, marker="o", ls="", alpha=0.3, label="faint = dominated"))
    hollow: dict[str, Any] = {"color": style.GREY, "marker": "o", "mfc": style.WHITE, "ls": "", "ms": 5}
    return [*handles, Line2D([], [], label="hollow = outside tolerance or seeds lost", **hollow)]
