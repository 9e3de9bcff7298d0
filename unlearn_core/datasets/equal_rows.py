"""Rows with equal inputs: inside a set, in two sets, and under different labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from unlearn_core.datasets.parts import SPLITS, Named, Part
from unlearn_core.datasets.reading import EXAMPLES, Note, Words


def row_keys(x: np.ndarray) -> np.ndarray:
    """(n,) uint64, equal where rows are; different rows of a million share one with a probability of 3e-8."""
    rows = np.ascontiguousarray(x + 0.0 if x.dtype.kind == "f" else x)  # minus zero equals zero
    whole, length = rows.data.cast("B"), rows.nbytes // len(rows)
    blake = hashlib.blake2b
    keys = [blake(whole[i : i + length], digest_size=8).digest() for i in range(0, len(whole), length)]
    return np.frombuffer(b"".join(keys), dtype=np.uint64)


@dataclass(frozen=True)
class EqualRows:
    """Which rows of the parts are equal. keys: of every part, see `row_keys`."""

    parts: Mapping[str, Part]
    named: Named
    keys: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, parts: Mapping[str, Part], named: Named) -> EqualRows:
        return cls(parts, named, {name: row_keys(part.x) for name, part in parts.items()})

    def distinct(self, split: str) -> np.ndarray:
        """Sorted positions of the first row of each kind."""
        return np.sort(np.unique(self.keys[split], return_index=True)[1])

    def shared(self, split: str, other: str) -> np.ndarray:
        """Positions of the rows of `split` that `other` has, too."""
        return np.flatnonzero(np.isin(self.keys[split], self.keys[other]))

    def duplicates(self) -> tuple[Note, ...]:
        found = [self._inside(split) for split in self.parts]
        return tuple(note for note in found if note.count)

    def overlaps(self) -> tuple[Note, ...]:
        pairs = (("validation", "train"), ("test", "train"), ("test", "validation"))
        found = [self._between(split, other) for split, other in pairs]
        return tuple(note for note in found if note.count)

    def contradictions(self) -> tuple[Note, ...]:
        """Rows whose input has another label somewhere in the three sets."""
        labels = np.concatenate([part.y for part in self.parts.values()])
        _, first, group = self._groups
        odd = np.flatnonzero(labels != labels[first[group]])
        if not len(odd):
            return ()
        rows = int(np.isin(group, group[odd]).sum())
        names = [f"{self._labelled(first[group[i]])} and {self._labelled(i)}" for i in odd[:EXAMPLES]]
        return (Note(text="rows with equal inputs and different labels", count=rows, examples=tuple(names)),)

    @cached_property
    def _groups(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.unique(np.concatenate(list(self.keys.values())), return_index=True, return_inverse=True)

    def _labelled(self, place: int) -> str:
        """A row by its place in all parts, one after the other, with its class."""
        for split, part in self.parts.items():
            if place < len(part.y):
                name = self.named.row(split, part, int(place))
                label = int(part.y[place])
                classes = self.named.reading.class_names
                return f"{name} (class {classes[label] if classes else label})"
            place -= len(part.y)
        raise IndexError(place)

    def _inside(self, split: str) -> Note:
        _, first, group = np.unique(self.keys[split], return_index=True, return_inverse=True)
        again = np.flatnonzero(first[group] != np.arange(len(group)))
        part = self.parts[split]
        names = [
            f"{self.named.row(split, part, int(i))} = {self.named.row(split, part, int(first[group[i]]))}"
            for i in again[:EXAMPLES]
        ]
        some = Words("row repeats", "rows repeat").of(len(again))
        return Note(text=f"{SPLITS[split]} {some} another one", count=len(again), examples=tuple(names))

    def _between(self, split: str, other: str) -> Note:
        same = self.shared(split, other)
        known = {int(key): i for i, key in reversed(list(enumerate(self.keys[other])))} if len(same) else {}
        names = [
            f"{self.named.row(split, self.parts[split], int(i))} = "
            f"{self.named.row(other, self.parts[other], known[int(self.keys[split][i])])}"
            for i in same[:EXAMPLES]
        ]
        some = Words("is a {} row", "are {} rows").of(len(same))
        text = f"of the {len(self.parts[split].y):,} {SPLITS[split]} rows {some.format(SPLITS[other])}, too"
        return Note(text=text, count=len(same), examples=tuple(names))
