"""All numbers of a report, computed once from a sweep; tables, figures and page only show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from analysis.reading.load import Sweep
from analysis.reading.points import (
    AXES,
    RETRAIN_AT_BUDGET,
    Axis,
    noise_bands,
    points,
    proposals,
    references,
    seed_results,
)
from analysis.results.agreement import agreement
from analysis.results.compare import comparisons, hypervolumes
from analysis.results.plane import Plane, plane
from analysis.results.verdict import Verdict, verdict
from analysis.statistics.intervals import Interval
from sweeps.schema.stages import Stage
from unlearn_core import checks

USUAL_TOLERANCE = 0.02
MOST_TOLD_APART = 10
"""Methods up to which a figure gives each its own colour and marker."""
ATTACKS_SHOWN = 24
"""Attacks up to which all have their figures, and their place on the page and the terminal; tables hold all anyway."""
HIGHLIGHTS = 7
"""Methods with their own colour where there are more: as many as there are colours."""


@dataclass(frozen=True)
class Results:
    """Tables of one sweep. Functions that make them document their columns."""

    sweep: Sweep
    axis: Axis
    tolerance: float  # largest utility gap that may win, in accuracy (0.02 = two points)
    seeds: pd.DataFrame
    points: pd.DataFrame
    proposals: pd.DataFrame
    references: pd.DataFrame
    comparisons: pd.DataFrame
    hypervolumes: pd.DataFrame
    plane: Plane | None  # only with several discovery rates, or healed attacks of different regularity
    bands: dict[str, Interval]
    verdicts: tuple[Verdict, ...]
    shown: tuple[str, ...]  # the attacks that figures, page and terminal show
    notes: tuple[str, ...]

    @cached_property
    def agreement(self) -> pd.DataFrame:
        """Computed when it is asked for: its intervals take most of the time of a whole report."""
        return agreement(self.sweep, self.references)

    @property
    def attacks(self) -> list[str]:
        return [v.attack for v in self.verdicts]

    @property
    def shown_verdicts(self) -> list[Verdict]:
        return [v for v in self.verdicts if v.attack in self.shown]

    @cached_property
    def methods(self) -> list[str]:
        """Unlearners in the order of the settings, then any others by name."""
        listed = self.sweep.spec.get("methods")
        order = (
            [m if isinstance(m, str) else str(m.get("name")) for m in listed if isinstance(m, str | dict)]
            if (isinstance(listed, list))
            else []
        )
        present = set(self.points["method"]) | set(self.proposals["method"])
        present -= {RETRAIN_AT_BUDGET}
        return [m for m in dict.fromkeys(order) if m in present] + sorted(present - set(order))

    @cached_property
    def highlighted(self) -> list[str]:
        """The methods that figures tell apart: all, or where they are many, the best of each attack in turn.

        Best = largest area under the front; retrain@b always has its own look and is not among them.
        """
        if len(self.methods) <= MOST_TOLD_APART:
            return self.methods
        areas = self.hypervolumes[self.hypervolumes["front"].isin(self.methods) & (self.hypervolumes["mean"] > 0)]
        areas = areas.sort_values("mean", ascending=False, kind="stable")
        turns = areas.assign(place=areas.groupby("attack").cumcount()).sort_values("place", kind="stable")
        best = list(dict.fromkeys([*turns["front"], *self.methods]))[:HIGHLIGHTS]
        return [m for m in self.methods if m in best]


def analyse(sweep: Sweep, *, axis: str = "flops", tolerance: float | None = None, show: Sequence[str] = ()) -> Results:
    """Compute everything that a report shows.

    Args:
        sweep: The records of a sweep, as they were read.
        axis: Cost that fronts and hypervolumes are measured against: flops, seconds or passes.
        tolerance: Largest utility gap that may win; by default the sweep's own.
        show: The attacks that figures, page and terminal show; by default the first ATTACKS_SHOWN.

    Raises:
        InputError: For an unknown axis or attack, or a negative tolerance.
    """
    checks.one_of("budget axis", axis, tuple(AXES))
    attacks = _attacks(sweep)
    for attack in show:
        checks.one_of("--show", attack, attacks)
    allowed, notes = _tolerance(sweep, tolerance)
    reference_rows = references(sweep)
    seeds = seed_results(sweep, reference_rows)
    means = points(seeds, tolerance=allowed)
    paired = comparisons(seeds, means, tolerance=allowed)
    return Results(
        sweep=sweep,
        axis=AXES[axis],
        tolerance=allowed,
        seeds=seeds,
        points=means,
        proposals=proposals(sweep),
        references=reference_rows,
        comparisons=paired,
        hypervolumes=hypervolumes(seeds, axis=AXES[axis], tolerance=allowed),
        plane=plane(sweep, reference_rows),
        bands=noise_bands(reference_rows),
        verdicts=tuple(verdict(a, seeds=seeds, points=means, comparisons=paired) for a in attacks),
        shown=tuple(a for a in attacks if not show or a in show)[: len(show) or ATTACKS_SHOWN],
        notes=(*sweep.notes, *notes, *_gaps(sweep, seeds, reference_rows)),
    )


def _tolerance(sweep: Sweep, given: float | None) -> tuple[float, list[str]]:
    stored = sweep.spec.get("utility_tolerance")
    if given is not None:
        checks.not_negative(tolerance=given)
        return given, []
    if isinstance(stored, int | float) and not isinstance(stored, bool):
        return float(stored), []
    return USUAL_TOLERANCE, [f"The sweep states no utility tolerance; {USUAL_TOLERANCE:g} is used."]


def _attacks(sweep: Sweep) -> list[str]:
    """Attacks in the order of the settings, then any others as they come."""
    present = list(dict.fromkeys(sweep.rows["attack"]))
    listed = sweep.spec.get("attacks")
    labels = (
        [a.get("label") or a.get("name") for a in listed if isinstance(a, dict)] if isinstance(listed, list) else []
    )
    return [a for a in dict.fromkeys(labels) if a in present] + [a for a in present if a not in labels]


def _gaps(sweep: Sweep, seeds: pd.DataFrame, reference_rows: pd.DataFrame) -> list[str]:
    """What the records do not hold, in words."""
    methods = set(reference_rows["method"])
    notes = []
    if not (sweep.rows["stage"] == Stage.CONFIRMATION).any():
        notes.append("There are no confirmation trials: nothing below is a confirmed result.")
    if RETRAIN_AT_BUDGET not in methods and seeds["retrain_at_budget_efficacy"].isna().all():
        notes.append("There is no retrain@b: no method can be compared with it.")
    if "retrain" not in methods:
        notes.append("There is no second oracle: the oracle-against-oracle noise band is unknown.")
    confirmed = seeds[seeds["method"] != RETRAIN_AT_BUDGET].groupby("attack")["seed"].nunique()
    if len(confirmed) and confirmed.max() < 3:
        notes.append(f"Only {confirmed.max()} confirmation seed(s): intervals are very wide or undefined.")
    return notes
