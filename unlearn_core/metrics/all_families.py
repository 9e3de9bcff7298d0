"""All families together: their columns, and everything that arrays allow to compute."""

from __future__ import annotations

from unlearn_core.checks import close_names
from unlearn_core.metrics.family import Arrays, Family
from unlearn_core.registry import METRICS


def families() -> dict[str, Family]:
    """All registered families by name."""
    return {name: METRICS.get(name) for name in METRICS.names()}


def columns() -> dict[str, str]:
    """Column -> meaning, over all families. Raises RuntimeError if two families declare the same column."""
    merged: dict[str, str] = {}
    for name, family in families().items():
        twice = merged.keys() & family.columns.keys()
        if twice:
            raise RuntimeError(f"metric {name!r} declares columns of another family: {sorted(twice)}")
        merged |= family.columns
    return merged


def measures_poisons(column: str) -> bool:
    """Whether a column is about poisons, and not about the model as a whole."""
    return any(column in family.columns and family.reads_poisons for family in families().values())


def compute_all(arrays: Arrays, *, of_poisons: bool = False) -> dict[str, float]:
    """The columns of every family whose arrays are all present; of_poisons: only of those that read poisons.

    Raises:
        ValueError: If an array is invalid, or if no family knows its name (a misspelt array would otherwise switch its
            family off without a word).
    """
    known = families()
    names = {name for family in known.values() for name in family.needs}
    for name in arrays:
        if name not in names:
            raise ValueError(f"array {name!r} is unknown to all metrics; {close_names(name, names)}")
    values: dict[str, float] = {}
    for family in known.values():
        if all(name in arrays for name in family.needs) and (family.reads_poisons or not of_poisons):
            values |= family(arrays)
    return values
