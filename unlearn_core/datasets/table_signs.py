"""Columns of a table that may not be what they seem: constant, or a copy of the label."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from unlearn_core.datasets.parts import Named
from unlearn_core.datasets.reading import Note, Words, note
from unlearn_core.datasets.shortcuts import SAMPLE, find_shortcuts


def constant_columns(x: np.ndarray, named: Named) -> tuple[Note, ...]:
    """The columns (n, columns) that have one value; a model learns nothing from them."""
    constant = np.flatnonzero((x == x[0]).all(axis=0))
    words = Words("column has one value in all training rows", "columns have one value in all training rows")
    return (note(words, named.columns(constant)),) if len(constant) else ()


def table_suspicions(x: np.ndarray, y: np.ndarray, classes: int, named: Named) -> Iterator[Note]:
    """Columns of the training rows that give the label away.

    Args:
        x: (n, columns) without rows that repeat another one: with them every column would give its rows' label.
        y: (n,) their labels.
        classes: Number of classes.
        named: What to call columns and classes.

    Yields:
        A note for each suspicion.
    """
    x, y = x[:SAMPLE], y[:SAMPLE]
    found = find_shortcuts(x, y, classes)
    whole = np.flatnonzero(found.labels)
    if len(whole):
        rest = "nearly every label alone, as a copy of it or a row number would"
        yield note(Words(f"column gives {rest}", f"columns each give {rest}"), named.columns(whole))
    # A threshold that separates one of many classes can be a good feature; two values that do are a coded label.
    single = np.flatnonzero(found.classes.any(axis=1) & ~found.labels) if classes > 2 else whole[:0]
    coded = [column for column in single if len(np.unique(x[:, column])) == 2]
    if len(coded):
        rest = "one class from all others, as a coded label would"
        words = Words(f"column of two values tells {rest}", f"columns of two values each tell {rest}")
        yield note(words, named.columns(coded))
