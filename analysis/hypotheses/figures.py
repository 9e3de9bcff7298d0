"""Figures of the two hypotheses: distance against the share removed, and directions against the wanted one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.figures import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOOKS = {"poison": style.COLOURS[1], "random": style.BLACK, "matched": style.COLOURS[0]}
NAMES = {"poison": "poisons", "random": "random clean rows", "matched": "clean rows, same labels"}
COLUMNS = 4
PROBLEMS = {"softmax": "softmax regression", "squared": "linear regression on one-hot labels"}
UPDATES = {
    "path_cosine_full": "accumulated update, all retained rows",
    "path_cosine_batch": "accumulated update, mini-batches",
}
LINES = {"path_cosine_full": "-", "path_cosine_batch": ":"}


def write_figures(rows: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw all figures into `folder`, PNG and PDF; returns the PNG files."""
    style.use()
    folder.mkdir(parents=True, exist_ok=True)
    figures = {"shift": shift_figure(rows)}
    for problem in rows.loc[rows["measure"] == "full_cosine", "problem"].unique():
        figures[f"directions_{problem}"] = direction_figure(rows, str(problem))
    return [_save(figure, folder / f"{name}.png") for name, figure in figures.items()]


def shift_figure(rows: pd.DataFrame) -> Figure:
    """Hypothesis 1: one panel per attack."""
    own = rows[(rows["measure"] == "l1") & (rows["problem"] == "softmax")]
    attacks = list(own["attack"].unique())
    lines = math.ceil(len(attacks) / COLUMNS)
    columns = math.ceil(len(attacks) / lines)
    figure, axes = plt.subplots(lines, columns, figsize=(2.9 * columns, 2.5 * lines + 0.6), sharex=True, squeeze=False)
    for number, ax in enumerate(axes.flat):
        if number >= len(attacks):
            ax.set_visible(False)
            continue
        draw_shift(ax, own[own["attack"] == attacks[number]])
        ax.set_title(attacks[number], fontsize=9)
        if number + columns >= len(attacks):
            ax.tick_params(labelbottom=True)
            ax.set_xlabel("rows removed, % of the\nnumber of poisons")
        if number % columns == 0:
            ax.set_ylabel("distance of the minimisers, L1")
    _legend(figure, extra=[])
    return figure


def draw_shift(ax: Axes, own: pd.DataFrame) -> None:
    """Median and the middle 80 % of the seeds, for each group."""
    for group, colour in LOOKS.items():
        x, middle, low, high = bands(own[own["group"] == group])
        ax.fill_between(100 * x, low, high, color=colour, alpha=0.2, lw=0)
        ax.plot(100 * x, middle, color=colour, lw=1.3, marker="o", ms=3)
    ax.set_ylim(bottom=0)


def bands(own: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """`at`, and the median, the 10 % and the 90 % quantile of the seeds, rising in `at`."""
    by_seed = own.groupby(["at", "seed"])["value"].mean().unstack("at")
    low, middle, high = np.quantile(by_seed.to_numpy(dtype=float), [0.1, 0.5, 0.9], axis=0)
    return by_seed.columns.to_numpy(dtype=float), middle, low, high


def direction_figure(rows: pd.DataFrame, problem: str) -> Figure:
    """Hypothesis 2: one column per attack; mini-batch cosines, accumulated updates, and what gradients do not span."""
    own = rows[rows["problem"] == problem]
    attacks = list(own.loc[own["measure"] == "full_cosine", "attack"].unique())
    figure, axes = plt.subplots(
        3, len(attacks), figsize=(2.2 * len(attacks) + 0.6, 6.6), sharey="row", sharex="row", squeeze=False
    )
    bins = _bins(own)
    for column, attack in enumerate(attacks):
        shown = own[own["attack"] == attack]
        draw_histogram(axes[0, column], shown[shown["measure"] == "batch_cosine"], bins)
        draw_path(axes[1, column], shown)
        draw_residual(axes[2, column], shown[shown["measure"] == "residual_share"])
        axes[0, column].set_title(attack, fontsize=9)
    for ax, label in zip(
        axes[:, 0], ("density of mini-batches", "cosine with v", "share of ‖v‖² outside"), strict=True
    ):
        ax.set_ylabel(label)
    for line, label in enumerate(("cosine of a mini-batch step with v", "steps", "singular vectors, % of all")):
        axes[line, (len(attacks) - 1) // 2].set_xlabel(label)
    figure.suptitle(PROBLEMS.get(problem, problem), fontsize=10)
    extra = [Line2D([], [], color=style.BLACK, ls=LINES[name], label=label) for name, label in UPDATES.items()]
    _legend(figure, extra=extra)
    return figure


def _bins(own: pd.DataFrame) -> np.ndarray:
    """The same for all panels, with 0, where directions are orthogonal."""
    values = own.loc[own["measure"] == "batch_cosine", "value"]
    return np.linspace(min(0.0, values.min()), max(0.0, values.max()), 60)


def draw_histogram(ax: Axes, own: pd.DataFrame, bins: np.ndarray) -> None:
    """Densities of the cosines, a colour per group."""
    for group, colour in LOOKS.items():
        values = own.loc[own["group"] == group, "value"]
        ax.hist(values, bins=list(bins), density=True, histtype="stepfilled", color=colour, alpha=0.25)
        ax.hist(values, bins=list(bins), density=True, histtype="step", color=colour, lw=1)
    ax.axvline(0, color=style.GREY, lw=0.8)


def draw_path(ax: Axes, own: pd.DataFrame) -> None:
    """Medians and bands along the path, a line style per measure and a colour per group."""
    for measure, line in LINES.items():
        for group, colour in LOOKS.items():
            x, middle, low, high = bands(own[(own["measure"] == measure) & (own["group"] == group)])
            ax.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
            ax.plot(x, middle, color=colour, lw=1.3, ls=line)
    ax.axhline(0, color=style.GREY, lw=0.8)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")  # powers would be formulas, which labels are not here


def draw_residual(ax: Axes, own: pd.DataFrame) -> None:
    """Bars side by side, and what a random direction would have."""
    ranks = sorted(own["at"].unique())
    for number, (group, colour) in enumerate(LOOKS.items()):
        means = own[own["group"] == group].groupby("at")["value"].mean()
        places = np.arange(len(ranks)) + (number - 1) * 0.27
        ax.bar(places, [means[rank] for rank in ranks], width=0.25, color=colour, alpha=0.75)
    for place, rank in enumerate(ranks):
        ax.plot([place - 0.42, place + 0.42], [1 - rank, 1 - rank], color=style.GREY, lw=1.2)
    ax.set_xticks(range(len(ranks)), [f"{100 * rank:g}" for rank in ranks])
    ax.grid(visible=False, axis="x")


def _legend(figure: Figure, *, extra: list[Line2D]) -> None:
    groups = [Patch(color=colour, label=f"removed: {NAMES[group]}") for group, colour in LOOKS.items()]
    random = [Line2D([], [], color=style.GREY, lw=1.2, label="a random direction")] if extra else []
    handles = [*groups, *extra, *random]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)


def _save(figure: Figure, path: Path) -> Path:
    """PNG and PDF without a date, so that equal results give equal files."""
    figure.savefig(path)
    figure.set_layout_engine("none")  # the places found for the image hold for the page too; finding them is slow
    figure.savefig(path.with_suffix(".pdf"), metadata={"CreationDate": None})
    plt.close(figure)
    return path
