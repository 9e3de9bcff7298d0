"""What to call the rows of a file in a message, without keeping a string for each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np

from unlearn_core.datasets.reading import EXAMPLES, Note, Words


@dataclass(frozen=True, eq=False)
class RowNames(Sequence[str]):
    """`before` and the number of each row, such as train.tsv:14; numbers: (n,) whole numbers."""

    before: str
    numbers: np.ndarray

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> RowNames: ...

    def __getitem__(self, index: int | slice) -> str | RowNames:
        if isinstance(index, slice):
            return RowNames(self.before, self.numbers[index])
        return f"{self.before}{self.numbers[index]}"

    def at(self, rows: np.ndarray) -> RowNames:
        """The names of these rows: (k,) positions, or (n,) truth values."""
        return RowNames(self.before, self.numbers[rows])


def numbered(before: str, count: int) -> RowNames:
    """Names of rows that are counted from 1."""
    return RowNames(before, np.arange(1, count + 1))


def rows_note(words: Words, rows: np.ndarray, example: Iterable[str], *, left_out: bool = False) -> Note | None:
    """A note on `rows`, or None if there are none.

    Args:
        words: What it says of one row, and of several.
        rows: (k,) positions.
        example: What to show of each row; the first few are shown.
        left_out: Whether the rows are no longer part of the data.
    """
    if not len(rows):
        return None
    examples = tuple(text for _, text in zip(range(EXAMPLES), example, strict=False))
    return Note(text=words.of(len(rows)), count=len(rows), examples=examples, rows=len(rows) if left_out else 0)


def present(*notes: Note | None) -> tuple[Note, ...]:
    """The notes that there are."""
    return tuple(note for note in notes if note is not None)
