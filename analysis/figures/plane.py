"""Heat map per method: share of the poisons discovered against attack, from low to high regularity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.figures import style
from analysis.results.plane import MEASURES, PLANE_REFERENCES, Plane, measure_of, order_of
from analysis.results.verdict import display

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

MOST_ROWS = 24
"""Attacks on a heat map; the table of cells holds all."""
DARK_BELOW = 0.65
"""Share of the colour range below which the map is so dark that numbers are white."""


class PlaneCurve(NamedTuple):
    """One panel."""

    method: str
    measure: str  # product or efficacy
    values: NDArray[np.float64]  # (attacks, rates): means over the counted seeds, NaN where there are none
    partial: NDArray[np.bool_]  # (attacks, rates): some seeds failed
    attacks: tuple[str, ...]  # labels with their regularity
    rates: tuple[float, ...]
    top: float = 1.0  # value at the upper end of the colour scale
    single: float | None = None  # the rate that stands for a single discovered poison

    @property
    def mean(self) -> float:
        """Over the cells; NaN unless all have a value."""
        return float(self.values.mean())


def curves(shown: Plane, methods: list[str]) -> dict[str, list[PlaneCurve]]:
    """Panels by measure; references first, then the methods from the best to the worst, unfinished ones last."""
    found: dict[str, list[PlaneCurve]] = {}
    for measure in ("product", "efficacy"):
        attacks = tuple(a for a in shown.rows if measure_of(shown, a) == measure)[:MOST_ROWS]
        if not attacks:
            continue
        panels = [_curve(shown, method, measure, attacks) for method in order_of(shown, methods)]
        panels = [p for p in panels if np.isfinite(p.values).any()]
        first = [p for p in panels if p.method in PLANE_REFERENCES]
        rest = sorted(
            (p for p in panels if p.method not in PLANE_REFERENCES), key=lambda p: -np.nan_to_num(p.mean, nan=-9.0)
        )
        top = _top(panels) if measure == "product" else 1.0
        found[measure] = [panel._replace(top=top) for panel in (*first, *rest)]
    return found


def _top(panels: list[PlaneCurve]) -> float:
    """The largest value of all panels, rounded up to a tenth: small models heal little, and colours still tell."""
    largest = max((float(np.nanmax(panel.values)) for panel in panels), default=1.0)
    return min(1.0, max(0.1, math.ceil(largest * 10 - 1e-9) / 10))


def _curve(shown: Plane, method: str, measure: str, attacks: tuple[str, ...]) -> PlaneCurve:
    own = shown.seeds[(shown.seeds["method"] == method) & shown.seeds["base_attack"].isin(attacks)]

    def grid(cells: pd.Series) -> NDArray[np.float64]:
        wide = cells.unstack("discovery_rate").reindex(index=list(attacks), columns=list(shown.rates))
        return wide.to_numpy(dtype=float)

    cells = own.groupby(["base_attack", "discovery_rate"])[measure]
    values, missing = grid(cells.mean()), grid(cells.size() - cells.count())
    labels = tuple(f"{a} ({shown.regularity[a]})" if shown.regularity[a] else a for a in attacks)
    return PlaneCurve(method, measure, values, missing > 0, labels, shown.rates, single=shown.single)


def draw(ax: Axes, shown: PlaneCurve) -> AxesImage:
    """Draw one panel; numbers are per cent (utility x healed) or efficacies, `*` = some seeds failed."""
    image = ax.imshow(shown.values, cmap="viridis", vmin=0, vmax=shown.top, aspect="auto")
    ax.set_facecolor(style.BAND)
    for (row, column), value in np.ndenumerate(shown.values):
        ink = "#ffffff" if value < DARK_BELOW * shown.top else style.BLACK
        ax.text(column, row, _cell(shown, row, column), ha="center", va="center", fontsize=7.5, color=ink)
    ax.set_xticks(range(len(shown.rates)), ["one" if r == shown.single else f"{100 * r:.3g}" for r in shown.rates])
    ax.set_yticks(range(len(shown.attacks)), list(shown.attacks))
    ax.tick_params(length=0)
    ax.grid(visible=False)
    ax.set_title(f"{display(shown.method)}  {_mean(shown)}".rstrip(), fontsize=9)
    return image


def _cell(shown: PlaneCurve, row: int, column: int) -> str:
    value = shown.values[row, column]
    if not np.isfinite(value):
        return "lost" if shown.partial[row, column] else ""
    return number(value, shown.measure) + ("*" if shown.partial[row, column] else "")


def _mean(shown: PlaneCurve) -> str:
    return number(shown.mean, shown.measure) if np.isfinite(shown.mean) else ""


def number(value: float, measure: str) -> str:
    """A value as panels show it: per cent for utility x healed."""
    return f"{100 * value:.0f}" if measure == "product" else f"{value:.2f}"


def notes(panels: Sequence[PlaneCurve]) -> str:
    """What the axis across is, and what else readers of these panels must know."""
    parts = ["poisons discovered, % (attacks by regularity)"]
    if panels[0].single in panels[0].rates:
        parts.append("one: a single poison")
    if any(np.isnan(panel.values).any() for panel in panels):
        parts.append("grey: no value")
    if len(panels[0].attacks) == MOST_ROWS:
        parts.append(f"at most {MOST_ROWS} attacks")
    return "; ".join(parts)


def title(measure: str) -> str:
    """What colour and number of a panel are."""
    return MEASURES[measure] + (", %" if measure == "product" else "")
