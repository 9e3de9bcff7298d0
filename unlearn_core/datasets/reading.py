"""What a source did with its files: what it used, what it left out, what it changed, and what may be unintended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

EXAMPLES = 3


class Words(NamedTuple):
    """What things are and why, as it follows their count: `file that is no image` and `files that are no images`."""

    one: str
    many: str

    def of(self, count: int) -> str:
        return self.one if count == 1 else self.many


@dataclass(frozen=True, kw_only=True)
class Note:
    """A fact about the data: how many things it concerns, and the first of them.

    Attributes:
        text: What they are and why; it follows the count in a sentence, and fits it, such as `files that are no
            images`.
        rows: How many rows of the files this accounts for; 0 for what holds no rows, such as a column or a stray file.
    """

    text: str
    count: int
    examples: tuple[str, ...] = ()
    rows: int = 0

    def __str__(self) -> str:
        such = "" if self.count == len(self.examples) else "such as "
        shown = f" ({such}{', '.join(self.examples)})" if self.examples else ""
        return f"{self.count:,} {self.text}{shown}"


def note(words: Words, things: Iterable[object], *, are_rows: bool = False) -> Note:
    """A note on all of `things`, the first three of which are its examples."""
    names = [str(thing) for thing in things]
    count = len(names)
    return Note(text=words.of(count), count=count, examples=tuple(names[:EXAMPLES]), rows=count if are_rows else 0)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a source read its files; the default is that of data which is made, not read.

    rows_found: rows in the files, of both parts together: those used and those of the notes in `left_out`. None for a
        source that reads no files.
    class_names: as the files have them, in the order of the class indices; empty if classes have no names but numbers.
    used: files, folders or columns that the data comes from, one string each.
    columns: names of a table's columns, in the order of the inputs.
    train_names, test_names: what to call each row in a message (a file, a line); empty for rows without a name.
    left_out: what the files hold and the data does not, with the reason.
    coerced: values that were changed so that they fit, such as pixels of 16 bits.
    warnings: what can be used and may be unintended.
    """

    rows_found: int | None = None
    class_names: tuple[str, ...] = ()
    used: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    train_names: Sequence[str] = ()
    test_names: Sequence[str] = ()
    left_out: tuple[Note, ...] = ()
    coerced: tuple[Note, ...] = ()
    warnings: tuple[Note, ...] = ()
