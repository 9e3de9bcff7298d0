"""Selection effect: what tuning promised against what confirmation found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from analysis.figures import style
from analysis.reading.points import CASE, RETRAIN_AT_BUDGET
from analysis.results.analyse import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class GapCurve(NamedTuple):
    """Tuned and confirmed efficacy of each chosen configuration under one attack."""

    attack: str
    pairs: pd.DataFrame  # attack, method, budget, tuned, confirmed, gap, same_settings


def pairs(results: Results, attacks: Sequence[str] | None = None) -> pd.DataFrame:
    """Tuned minus confirmed efficacy per (attack, method, budget), of some attacks or all.

    A chosen configuration is looked up among the proposals; where it cannot be found, the best score stands for it
    and `same_settings` is False.
    """
    attacks = results.attacks if attacks is None else attacks
    points, proposals = (table[table["attack"].isin(attacks)] for table in (results.points, results.proposals))
    chosen = points[points["method"] != RETRAIN_AT_BUDGET]
    chosen = chosen[[*CASE, "settings", "efficacy", "utility_gap"]].dropna(subset="efficacy")
    tuned = proposals[[*CASE, "settings", "efficacy", "score"]].rename(columns={"efficacy": "tuned"})
    exact = chosen.merge(tuned.drop(columns="score"), on=[*CASE, "settings"], how="left")
    best = tuned.sort_values("score").drop_duplicates(CASE, keep="last")[[*CASE, "tuned"]]
    both = exact.merge(best, on=CASE, how="left", suffixes=("", "_best"))
    both["same_settings"] = both["tuned"].notna()
    both["tuned"] = both["tuned"].fillna(both.pop("tuned_best"))
    both = both.rename(columns={"efficacy": "confirmed"}).dropna(subset="tuned")
    return both.assign(gap=both["tuned"] - both["confirmed"])[
        [*CASE, "tuned", "confirmed", "gap", "same_settings"]
    ].reset_index(drop=True)


def curve(results: Results, attack: str) -> GapCurve:
    """Numbers of one panel."""
    return GapCurve(attack, pairs(results, [attack]))


def draw(ax: Axes, shown: GapCurve, looks: dict[str, style.Look]) -> None:
    """Draw one panel; points below the diagonal lost by moving to fresh scenarios."""
    ax.axline((0, 0), slope=1, color=style.GREY, lw=1)
    for method, own in shown.pairs.groupby("method", sort=False):
        look = looks[str(method)]
        size, alpha = (8, 0.6) if look.faint else (26, 0.85)
        ax.scatter(
            own["tuned"], own["confirmed"], s=size, marker=look.marker, color=look.colour, alpha=alpha, linewidths=0
        )
    low, high = style.efficacy_limits(float(shown.pairs[["tuned", "confirmed"]].min().min()))
    ax.set(xlim=(low, high), ylim=(low, high), xlabel="efficacy when tuned", ylabel="efficacy when confirmed")
    ax.set_title(shown.attack)
    ax.set_aspect("equal")
