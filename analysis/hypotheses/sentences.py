"""What the tables on the hypotheses say, for the terminal."""

from __future__ import annotations

from typing import Any

import pandas as pd

from analysis.tables.report_tables import markdown

ABOVE, BELOW, NOT_ABOVE = "above", "below", "not above"
TOO_FEW = ""
"""No verdict: the attack succeeded in fewer than two seeds."""
SHOWN = [
    "attack", "took", "poison", "random", "matched", "ratio", "verdict", "verdict_taken", "l2_ratio",
    "l2_against_random", "residual_poison", "residual_random",
]  # fmt: skip
RATIO = ["ratio", "ratio_low", "ratio_high"]


def summary(tables: dict[str, pd.DataFrame], facts: dict[str, Any]) -> str:
    """Both tables and what they say, for the terminal."""
    shift, direction = tables["shift"], tables["direction"]
    seeds = facts["spec"]["protocol"]["seeds"]
    lines = [f"H1, distance that the minimiser moves, {seeds} seeds", markdown(_shown(shift)), _told(shift)]
    if len(direction):
        lines += ["", "H2, cosines with the wanted direction", markdown(direction), _orthogonal(direction)]
    return "\n".join(lines)


def _shown(shift: pd.DataFrame) -> pd.DataFrame:
    """The columns for the terminal, ratios with their intervals."""
    ratios = [f"{r:.3g} [{low:.3g}, {high:.3g}]" for r, low, high in shift[RATIO].itertuples(index=False)]
    return shift.assign(ratio=ratios)[SHOWN]


def _told(shift: pd.DataFrame) -> str:
    """The verdict on hypothesis 1, of every attack over all seeds, and over those in which the attacks succeeded."""
    lines = []
    for row in shift.to_dict("records"):
        held = "holds" if row["verdict"] == ABOVE else "does not hold"
        lines.append(f"H1 {row['attack']}: {held} (took {row['took']})")
    taken = {v: ", ".join(shift.loc[shift["verdict_taken"] == v, "attack"]) for v in (ABOVE, NOT_ABOVE, TOO_FEW)}
    counts = f"holds for: {taken[ABOVE] or 'none'}; not for: {taken[NOT_ABOVE] or 'none'}"
    return "\n".join([*lines, f"H1 where attacks took {counts}; took in fewer than 2: {taken[TOO_FEW] or 'none'}"])


def _orthogonal(direction: pd.DataFrame) -> str:
    """The verdict on hypothesis 2: clean gradients must be less aligned for poisons than for random rows."""
    count = {name: int((direction[f"{name}_verdict"] == BELOW).sum()) for name in ("full", "batch")}
    words = f"{count['full']} (all rows) and {count['batch']} (mini-batches) of {len(direction)} cases"
    return f"H2: the cosine is below that of random clean rows in {words}"
