"""A sweep's results as one object for a notebook: tables as pandas, figures as matplotlib."""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING

import pandas as pd

from analysis.pages.notebook_view import as_html
from analysis.reading.load import load_sweep
from analysis.reading.points import CASE, RETRAIN_AT_BUDGET
from analysis.results.analyse import Results, analyse
from analysis.results.compare import AGAINST
from analysis.results.verdict import Verdict
from analysis.tables.report_tables import best_per_budget
from unlearn_core import checks
from unlearn_core.checks import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINT = [
    *CASE, "efficacy", "efficacy_low", "efficacy_high", "utility_gap", "utility_gap_low", "utility_gap_high", "score",
    "n", "budget_spent", "seconds", "within_tolerance", "eligible",
]  # fmt: skip
LINE = 118


def load(folder: str | Path, *, axis: str = "flops", tolerance: float | None = None) -> SweepResults:
    """Read the results folder of one sweep.

    Args:
        folder: `OUT/<sweep name>`, while the sweep runs or afterwards.
        axis: Cost that fronts are measured against: flops, seconds or passes.
        tolerance: Largest utility gap that may win, in accuracy (0.02 is two points); by default the sweep's own.

    Returns:
        Tables, verdicts and figures of the sweep. What takes long is computed when it is asked for.

    Raises:
        InputError: if the folder holds no sweep or no records yet, or an argument is out of range.
    """
    _check_folder(Path(folder))
    return SweepResults(analyse(load_sweep(folder), axis=axis, tolerance=tolerance))


def _check_folder(folder: Path) -> None:
    """A folder of sweeps in place of a sweep is the usual mistake: name those that it holds."""
    if not folder.is_dir() or _has_records(folder):
        return
    inside = sorted(str(child) for child in folder.iterdir() if child.is_dir() and _has_records(child))
    hint = f"; did you mean {' or '.join(map(repr, inside[:3]))}?" if inside else ""
    raise InputError(f"{str(folder)!r} is not the results folder of a sweep: it holds no records{hint}")


def _has_records(folder: Path) -> bool:
    return any((folder / name).exists() for name in ("records.parquet", "records"))


class SweepResults:
    """What one sweep found.

    Budgets and costs are shares of the oracle's, accuracies and gaps are shares of one. Tables are copies: change them
    as you like. `full` holds everything that the report is made from.
    """

    def __init__(self, full: Results) -> None:
        self.full = full

    @property
    def name(self) -> str:
        """The sweep's name."""
        return self.full.sweep.name

    @property
    def attacks(self) -> list[str]:
        """Labels of the attacks, in the order of the settings."""
        return self.full.attacks

    @property
    def methods(self) -> list[str]:
        """Names of the unlearners, without the references."""
        return list(self.full.methods)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """For each attack, whether any method beats retraining with the same budget, in words."""
        return self.full.verdicts

    @property
    def notes(self) -> tuple[str, ...]:
        """What is missing or damaged in the records."""
        return self.full.notes

    @property
    def points(self) -> pd.DataFrame:
        """One row per (attack, method, budget), retrain@b among the methods.

        Columns: means over the `n` confirmation scenarios that count of efficacy, utility_gap and score, `<x>_low` and
        `<x>_high` for 95 % intervals, the cost as `budget_spent` and `seconds`, whether the gap is within the
        tolerance, and whether the point may win (`eligible`: within it, and no seed lost).
        """
        return self.full.points.rename(columns={"n_counted": "n"})[POINT].copy()

    @cached_property
    def _settings(self) -> pd.DataFrame:
        points = self.full.points[self.full.points["method"] != RETRAIN_AT_BUDGET]
        rows = [{k: v for k, v in json.loads(text).items() if k != "name"} for text in points["settings"]]
        return pd.DataFrame(rows, index=pd.MultiIndex.from_frame(points[CASE]))

    @property
    def settings(self) -> pd.DataFrame:
        """The settings that tuning chose, one column each; index: (attack, method, budget)."""
        return self._settings.copy()

    def best(self, attack: str | None = None) -> pd.DataFrame:
        """The method with the largest efficacy that may win, per attack and budget, beside retrain@b.

        Args:
            attack: Only this one.
        """
        return self._of(best_per_budget(self.full).drop(columns="settings"), attack)

    def front(self, attack: str) -> pd.DataFrame:
        """The points of `attack` that no other beats in both cost and efficacy, cheapest first; columns as `points`.

        Raises:
            InputError: for an unknown attack; the message names those that are near.
        """
        from analysis.figures.front import curve  # it needs matplotlib, which takes a second

        self._check(attack)
        points = curve(self.full, attack).points
        kept = points[points["on_front"]].sort_values("x").rename(columns={"n_counted": "n"})
        return kept[POINT].reset_index(drop=True)

    def compare(self, attack: str | None = None, *, against: str = RETRAIN_AT_BUDGET) -> pd.DataFrame:
        """Each method minus a rival in the same scenarios: mean difference in efficacy, 95 % interval, p and q.

        Args:
            attack: Only this one.
            against: retrain_at_budget; "retrain_at_budget, score" for the score instead of the efficacy; or retrain,
                the second oracle.

        Returns:
            One row per (attack, method, budget); q is corrected for all of them (Benjamini-Hochberg), and `outcome`
            says who won.
        """
        checks.one_of("against", against, tuple(AGAINST))
        table = self.full.comparisons
        return self._of(table[table["against"] == against].drop(columns="against"), attack)

    @property
    def agreement(self) -> pd.DataFrame:
        """Which metrics rank models as the attack's own metric does; takes seconds to minutes when first asked for."""
        return self.full.agreement.copy()

    def plot(self, kind: str = "front", attack: str | None = None, *, width: float = 6.5) -> Figure:
        """A figure for a page or a slide.

        Args:
            kind: Front (efficacy against cost), tradeoff (efficacy against utility gap) or tuning_gap (tuning against
                confirmation).
            attack: Only this one; by default a panel for each.
            width: Of the figure, in inches; 3.25 is a column of most papers.

        Returns:
            A matplotlib figure; `.savefig("front.pdf")` writes it.
        """
        from analysis.figures import fitted

        self._check(attack)
        return fitted.draw(self.full, kind, list(self.full.shown) if attack is None else [attack], width)

    def _of(self, table: pd.DataFrame, attack: str | None) -> pd.DataFrame:
        self._check(attack)
        kept = table if attack is None else table[table["attack"] == attack]
        return kept.reset_index(drop=True)

    def _check(self, attack: str | None) -> None:
        if attack is not None:
            checks.one_of("attack", attack, self.attacks)

    def __repr__(self) -> str:
        budgets = self.full.points["budget"].nunique()
        head = f"{self.name}: {len(self.methods)} methods, {budgets} budgets, tolerance {self.full.tolerance:g}"
        widest = max(map(len, self.attacks), default=0)
        lines = [f"  {v.attack:<{widest}}  {shorten(v.text, LINE - widest, placeholder=' ...')}" for v in self.verdicts]
        return "\n".join([head, *lines])

    def _repr_html_(self) -> str:
        return as_html(self.full)
