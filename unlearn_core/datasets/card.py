"""What the data became: one card per loaded data set, shown wherever its numbers are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unlearn_core.checks import shown
from unlearn_core.datasets.parts import SPLITS
from unlearn_core.datasets.reading import Note

CLASSES_SHOWN = 12  # in the text; the dictionary has all
THINGS_SHOWN = 8  # files or columns
LONGEST = 120  # characters of one
RANGES = {"images": "pixels", "numbers": "values", "texts": "tokens per text"}


@dataclass(frozen=True, kw_only=True)
class SplitFacts:
    """One of the three sets.

    Attributes:
        per_class: Rows of each class, by its index.
        low: Least raw value (of images the pixels in 0 .. 255; of text the tokens per text).
        high: Largest raw value.
    """

    name: str
    rows: int
    per_class: tuple[int, ...]
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class DataCard:
    """Facts about a data set as it is used here, and what may be wrong with it.

    Attributes:
        classes: Names by class index; their numbers where they have no names.
        shape: Of one row, as its source gives it.
        used: What the source used of its files; see `Reading`.
        columns: Names of the columns that are inputs; see `Reading`.
        left_out: What was left out, and why; see `Reading`.
        coerced: What was changed; see `Reading`.
        facts: What is worth knowing and no reason to worry.
        absent: Classes without a validation or test row.
        duplicates: Rows that repeat a row of the same set.
        overlaps: Held-out rows that another set has, too.
        contradictions: Equal inputs with different labels.
        suspicions: All else that may be unintended.
        errors: What makes every result on this data meaningless; `load_dataset` refuses such data.
    """

    name: str
    kind: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    splits: tuple[SplitFacts, ...]
    used: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    left_out: tuple[Note, ...] = ()
    coerced: tuple[Note, ...] = ()
    facts: tuple[Note, ...] = ()
    absent: tuple[Note, ...] = ()
    duplicates: tuple[Note, ...] = ()
    overlaps: tuple[Note, ...] = ()
    contradictions: tuple[Note, ...] = ()
    suspicions: tuple[Note, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def warnings(self) -> tuple[Note, ...]:
        """What may be intended, and may be not."""
        return (*self.absent, *self.overlaps, *self.contradictions, *self.suspicions, *self.duplicates)

    def to_dict(self) -> dict[str, Any]:
        """The same in the types of JSON."""
        return dict(json.loads(json.dumps(asdict(self))))

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> DataCard:
        """The card that `to_dict` gave."""
        made: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()}
        made["splits"] = tuple(
            SplitFacts(**{**split, "per_class": tuple(split["per_class"])}) for split in raw["splits"]
        )
        for key in NOTES & raw.keys():
            made[key] = tuple(Note(**{**note, "examples": tuple(note["examples"])}) for note in raw[key])
        return cls(**made)

    def lines(self) -> list[str]:
        """The card as a short block of text, without its warnings."""
        parts: list[tuple[str, str]] = [
            ("data", f"{self.name}: {self.kind}, " + _listed(f"{s.rows:,} {SPLITS[s.name]}" for s in self.splits)),
            ("rows", "per class " + " / ".join(SPLITS[s.name] for s in self.splits) + ": " + self._class_counts()),
            ("inputs", f"{' x '.join(map(str, self.shape))}; {RANGES[self.kind]} {self._ranges()}"),
        ]
        parts += [("used", _cut(self.used))] if self.used else []
        parts += [("columns", _cut(self.columns))] if self.columns else []
        parts += [("left out", str(note)) for note in self.left_out]
        parts += [("changed", str(note)) for note in self.coerced]
        parts += [("note", str(note)) for note in self.facts]
        return [f"{label:<11} {printable(text)}" for label, text in parts]

    def _class_counts(self) -> str:
        counts = list(zip(*(split.per_class for split in self.splits), strict=True))
        parts = [
            f"{i}{'' if name == str(i) else f' {shown(name, 40)}'} {'/'.join(map(str, rows))}"
            for i, (name, rows) in enumerate(zip(self.classes, counts, strict=True))
        ]
        if len(parts) <= CLASSES_SHOWN:
            return ", ".join(parts)
        spans = "/".join(_span(split.per_class) for split in self.splits)
        rest = len(parts) - CLASSES_SHOWN // 2
        return ", ".join(parts[: CLASSES_SHOWN // 2]) + f", and {rest} more classes; all have {spans}"

    def _ranges(self) -> str:
        spans = {split.name: f"{split.low:g} to {split.high:g}" for split in self.splits}
        if len(set(spans.values())) == 1:
            return next(iter(spans.values()))
        return ", ".join(f"{span} ({SPLITS[name]})" for name, span in spans.items())


NOTES = {"left_out", "coerced", "facts", "absent", "duplicates", "overlaps", "contradictions", "suspicions"}


def printable(text: str) -> str:
    """`text` on one line: names come from files, and may hold line breaks or codes that steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def differences(before: DataCard, now: DataCard) -> list[str]:
    """In which facts two cards differ, such as `training rows: 100, now 90`; empty if it is the content alone."""
    return list(_differences(before, now))


def _differences(before: DataCard, now: DataCard) -> Iterator[str]:
    if before.classes != now.classes:
        yield f"classes: {_cut(before.classes)}, now {_cut(now.classes)}"
    if before.shape != now.shape:
        yield f"shape of a row: {list(before.shape)}, now {list(now.shape)}"
    if before.columns != now.columns:
        yield f"columns: {_cut(before.columns)}, now {_cut(now.columns)}"
    for old, new in zip(before.splits, now.splits, strict=True):
        if old.rows != new.rows:
            yield f"{SPLITS[old.name]} rows: {old.rows}, now {new.rows}"
        elif old.per_class != new.per_class:
            yield f"{SPLITS[old.name]} rows per class: {_cut(old.per_class)}, now {_cut(new.per_class)}"
        if (old.low, old.high) != (new.low, new.high):
            yield f"{SPLITS[old.name]} range: {old.low:g} to {old.high:g}, now {new.low:g} to {new.high:g}"


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low}-{high}"


def _listed(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last} rows"


def _cut(things: Sequence[object]) -> str:
    texts = [str(thing) for thing in things[:THINGS_SHOWN]]
    parts = ", ".join(text if len(text) <= LONGEST else text[: LONGEST - 3] + "..." for text in texts)
    return parts + (f" and {len(things) - THINGS_SHOWN} more" if len(things) > THINGS_SHOWN else "")
