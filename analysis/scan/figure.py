"""A setting on the horizontal axis, what the models have of an attack on the vertical ones: one row per attack."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np

from analysis.figures import style
from analysis.figures.save import save
from analysis.reading.points import RETRAIN_AT_BUDGET
from analysis.results.verdict import display
from analysis.scan.scan import SCAN_REFERENCES, Scan

if TYPE_CHECKING:
    from matplotlib.axes import Axes

REFERENCE_LOOKS = {
    "oracle": style.Look(style.COLOURS[0], "o", "circle"),
    "none": style.Look(style.COLOURS[1], "s", "square"),
    "retrain": style.Look(style.GREY, "^", "triangle-up"),
}
NULL = {"primary_z": 0.0, "gaussian_clipped_z": 0.0, "gaussian_tpr_exact": 0.01}
"""What a model without poison has, whatever the attack."""
LOG_FROM = 8
"""Ratio of the largest to the smallest value from which their axis is logarithmic."""
SPREAD = 0.012
"""Models are drawn side by side: share of the axis between neighbours."""


def write_figure(scan: Scan, stem: Path) -> Path:
    """Draw `stem`.png and `stem`.pdf; returns the image."""
    style.use()
    rows = [(attack, scan.measures(attack)) for attack in scan.attacks]
    columns = max(len(measures) for _, measures in rows)
    size = (2.9 * columns, 2.6 * len(rows) + 0.6)
    figure, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False)
    for line, (attack, measures) in zip(axes, rows, strict=True):
        for ax in line[len(measures) :]:
            ax.set_visible(False)
        for ax, (measure, name) in zip(line, measures.items(), strict=False):
            draw(ax, scan, attack, measure)
            ax.set_title(name if len(rows) == 1 else f"{attack}: {name}")
    named = {text: handle for ax in axes.flat for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(named.values(), named.keys(), loc="outside lower center", ncols=min(8, len(named)), frameon=False)
    return save(figure, stem)


def draw(ax: Axes, scan: Scan, attack: str, measure: str) -> None:
    """One panel: means over seeds with their 95 % intervals; dotted: what a model without poison has."""
    wanted = [m for m in scan.models(attack) if (m in SCAN_REFERENCES) != (measure == "efficacy")]
    methods = [m for m in scan.models(attack) if m not in (*SCAN_REFERENCES, RETRAIN_AT_BUDGET)]
    looks = style.looks([*REFERENCE_LOOKS, *methods]) | REFERENCE_LOOKS
    places = positions(ax, scan.values)
    for i, model in enumerate(wanted):
        found = [scan.interval(attack, model, measure, order) for order in range(len(scan.values))]
        mean, half = (np.array([getattr(f, part) for f in found]) for part in ("mean", "half"))
        look, line = looks[model], "--" if model == RETRAIN_AT_BUDGET else "-"
        ax.errorbar(
            shifted(ax, places, SPREAD * (i - (len(wanted) - 1) / 2)), mean, np.nan_to_num(half), color=look.colour,
            marker=look.marker, ms=4, lw=1.2, ls=line, capsize=2, elinewidth=0.9, label=display(model),
        )  # fmt: skip
    if measure in NULL:
        ax.axhline(NULL[measure], color=style.GREY, ls=":", lw=1, zorder=1)
    if measure == "efficacy":
        ax.set_ylim(*style.efficacy_limits(ax.get_ylim()[0]))
    ax.set_xlabel(scan.axis)


def positions(ax: Axes, values: tuple[str, ...]) -> np.ndarray:
    """Where the values lie, with a tick at each: numbers to scale (logarithmic over a wide range), words in order."""
    numbers = np.array([number(value) for value in values])
    ordered = bool(np.isfinite(numbers).all()) and len(set(numbers)) == len(numbers)
    places = numbers if ordered else np.arange(len(values), dtype=float)
    if ordered and places.min() > 0 and places.max() / places.min() >= LOG_FROM:
        ax.set_xscale("log")
        ax.margins(x=0.08)
    elif len(places) > 1:
        reach = 0.12 * float(np.ptp(places))
        ax.set_xlim(places.min() - reach, places.max() + reach)
    ax.set_xticks(places, [f"{place:.3g}" for place in places] if ordered else [v.replace("_", " ") for v in values])
    ax.minorticks_off()
    ax.tick_params(axis="x", labelsize=8 if len(values) < 5 else 6.5)
    return places


def shifted(ax: Axes, places: np.ndarray, share: float) -> np.ndarray:
    """`places`, moved by this share of what they span."""
    if ax.get_xscale() == "log":
        return places * (places.max() / places.min()) ** share
    return places + share * (float(np.ptp(places)) or 1.0)


def number(value: str) -> float:
    """The value as a number, NaN for words."""
    try:
        return float(value)
    except ValueError:
        return float("nan")
