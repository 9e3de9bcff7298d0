"""One plain sentence per attack: does any method beat retraining with the same budget?"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from analysis.reading.points import RETRAIN_AT_BUDGET
from analysis.results.compare import BEATS, COSTLY, FAILING, FEW, NO_RIVAL, SCORED, UNDECIDED, WORSE

SHOWN_FEW = 3
"""How many methods a sentence names before it says "and n more"."""


class Verdict(NamedTuple):
    """The answer for one attack."""

    attack: str
    kind: str  # beats, beats_with_utility, retrain_beats_all, none_beats, undecided, not_taken or no_results
    text: str
    remarks: tuple[str, ...]


def display(method: str) -> str:
    """Name of a method as readers see it."""
    known = {RETRAIN_AT_BUDGET: "retrain@b", "retrain": "second oracle", "none": "corrupted model"}
    known |= {SCORED: "retrain@b, by score", "retrain_discovered": "retrain (discovered)"}
    return known.get(method, method)


def percent(share: float) -> str:
    """A share in per cent, to three digits."""
    return f"{100 * share:.3g} %"


def list_budgets(budgets: Iterable[float], ladder: Iterable[float]) -> str:
    """`b >= 4 %` where the budgets are the upper end of the ladder, else all of them: `b = 2, 8 %`."""
    chosen, steps = sorted(set(budgets)), sorted(set(ladder))
    if len(chosen) > 1 and chosen == steps[-len(chosen) :]:
        return "every budget" if len(chosen) == len(steps) else f"b >= {percent(chosen[0])}"
    return "b = " + ", ".join(f"{100 * b:.3g}" for b in chosen) + " %"


def verdict(attack: str, *, seeds: pd.DataFrame, points: pd.DataFrame, comparisons: pd.DataFrame) -> Verdict:
    """Judge one attack from the tables of the whole sweep (see `points.seed_results`, `points`, `comparisons`)."""
    seeds, points, grid = (table[table["attack"] == attack] for table in (seeds, points, comparisons))
    scored, grid = grid[grid["against"] == SCORED], grid[grid["against"] == RETRAIN_AT_BUDGET]
    scenarios = seeds.drop_duplicates("seed")
    took = int(seeds.groupby("seed")["took"].any().sum()) if len(seeds) else 0
    if not len(scenarios):
        return Verdict(attack, "no_results", "undecided: there are no confirmed results yet", ())
    if not took:
        text = f"the attack did not take in any of {len(scenarios)} confirmation scenarios, so nothing can be removed"
        return Verdict(attack, "not_taken", text, ())
    partly = f"the attack took in {took} of {len(scenarios)} confirmation scenarios; the others are left out"
    remarks = [partly] if took < len(scenarios) else []
    kind, text = _judge(grid)
    if kind != "beats" and (scored["outcome"] == BEATS).any():
        kind, text = "beats_with_utility", f"counting utility, {_winners(scored)}; in efficacy alone: {text}"
    return Verdict(attack, kind, text, (*remarks, *_remarks(grid, points), *_ahead(scored)))


def _judge(grid: pd.DataFrame) -> tuple[str, str]:
    tested = grid[grid["outcome"] != FEW]
    if tested.empty:
        return "no_results", "undecided: no budget has paired results with retrain@b on two or more seeds"
    counts = tested["outcome"].value_counts()
    if counts.get(BEATS, 0):
        return "beats", _winners(tested)
    worse, total = int(counts.get(WORSE, 0)), len(tested)
    if worse == len(grid):
        return "retrain_beats_all", f"retrain@b significantly beats every method at every budget ({total} comparisons)"
    decided = {
        "{} are undecided": int(counts.get(UNDECIDED, 0)),
        "retrain@b is significantly better in {}": worse,
        "retrain@b has more efficacy, but is outside the tolerance itself, in {}": int(counts.get(NO_RIVAL, 0)),
        "a method has more efficacy, but cannot win for the reasons below, in {}": int(
            counts.get(COSTLY, 0) + counts.get(FAILING, 0)
        ),
    }
    if counts.get(UNDECIDED, 0) < total:
        details = "; ".join(text.format(n) for text, n in decided.items() if n)
        return "none_beats", f"no method significantly beats retrain@b at any budget: of {total} comparisons, {details}"
    seeds = int(tested["n"].max())
    crossing = int(((tested["low"] <= 0) & (tested["high"] >= 0)).sum())
    return "undecided", (
        f"undecided: no method differs significantly from retrain@b ({crossing} of {total} paired 95 % intervals "
        f"include zero, none of the others survives the correction for {total} comparisons; up to {seeds} seeds)"
    )


def _winners(tested: pd.DataFrame) -> str:
    """Winning methods, the one with the largest mean difference first."""
    wins = tested[tested["outcome"] == BEATS]
    order = wins.groupby("method")["difference"].mean().sort_values(ascending=False).index
    parts = []
    for method in order[:SHOWN_FEW]:
        own = wins[wins["method"] == method].sort_values("budget")
        where = list_budgets(own["budget"], tested.loc[tested["method"] == method, "budget"])
        first = own.iloc[0]
        parts.append(
            f"{method} beats retrain@b at {where} (at {percent(first['budget'])}: paired difference "
            f"{first['difference']:+.2f} [{first['low']:.2f}, {first['high']:.2f}], q = {_q(first['q'])}, "
            f"{first['n']} seeds)"
        )
    more = len(order) - len(parts)
    return "; ".join(parts) + (f"; and {more} more" if more else "")


def _q(q: float) -> str:
    return f"{q:.2g}" if q >= 0.001 else f"{q:.0e}"


def _remarks(grid: pd.DataFrame, points: pd.DataFrame) -> list[str]:
    said = {
        COSTLY: "has more efficacy than retrain@b at {where}, but its utility gap exceeds the tolerance: no win",
        FAILING: "has more efficacy than retrain@b at {where}, but some seeds failed or are missing: no win",
    }
    found = []
    for outcome, text in said.items():
        for method, own in grid[grid["outcome"] == outcome].groupby("method"):
            where = list_budgets(own["budget"], grid.loc[grid["method"] == method, "budget"])
            found.append(f"{method} {text.format(where=where)}")
    return found + _failures(points) + _retrain_outside(points)


def _ahead(scored: pd.DataFrame) -> list[str]:
    """Who is ahead in score on its own interval, but not after the correction for all comparisons."""
    near = scored[(scored["outcome"] == UNDECIDED) & (scored["low"] > 0) & scored["within_tolerance"].astype(bool)]
    near = near[near["removes"].astype(bool)]
    if near.empty:
        return []
    order = near.groupby("method")["difference"].mean().sort_values(ascending=False).index
    names = [
        f"{m} at {list_budgets(near.loc[near['method'] == m, 'budget'], scored.loc[scored['method'] == m, 'budget'])}"
        for m in order[:SHOWN_FEW]
    ]
    more = f" and {len(order) - SHOWN_FEW} more" if len(order) > SHOWN_FEW else ""
    return [
        f"counting utility, ahead of retrain@b: {', '.join(names)}{more}; not significant after the correction "
        f"(smallest q {_q(near['q'].min())}, {int(near['n'].max())} seeds): more confirmation seeds would tell"
    ]


def _failures(points: pd.DataFrame) -> list[str]:
    found = []
    for column, text in (("n_failed", "failed"), ("n_missing", "have no result yet")):
        for method, own in points[points[column] > 0].groupby("method"):
            where = list_budgets(own["budget"], points.loc[points["method"] == method, "budget"])
            count = f"{int(own[column].max())} of {int(own['n_seeds'].max())} seeds"
            found.append(f"{display(str(method))}: {count} {text} at {where}; they are not in its mean")
    return found


def _retrain_outside(points: pd.DataFrame) -> list[str]:
    """Where retrain@b itself loses too much accuracy, and who stays inside the tolerance there."""
    rival = points[
        (points["method"] == RETRAIN_AT_BUDGET) & ~points["within_tolerance"] & points["utility_gap"].notna()
    ]
    if rival.empty:
        return []
    ladder = points.loc[points["method"] == RETRAIN_AT_BUDGET, "budget"]
    gaps = f"{rival['utility_gap'].min():.3f} to {rival['utility_gap'].max():.3f}"
    inside = points[points["budget"].isin(rival["budget"]) & points["within_tolerance"]]
    inside = inside[np.isfinite(inside["efficacy"]) & inside["eligible"].astype(bool)]
    text = f"retrain@b itself is outside the tolerance at {list_budgets(rival['budget'], ladder)} (utility gap {gaps})"
    if inside.empty:
        return [f"{text}; so is every method there"]
    best = inside.loc[inside["efficacy"].idxmax()]
    return [
        f"{text}; best inside it there: {best['method']} at {percent(best['budget'])}, efficacy {best['efficacy']:.2f}"
    ]
