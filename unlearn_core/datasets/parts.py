"""The rows of a source that are used for one purpose, and what to call them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from unlearn_core.datasets.reading import Reading

SPLITS = {"train": "training", "validation": "validation", "test": "test"}
"""The three purposes, and the words for them in messages."""


class Part(NamedTuple):
    """The rows of a source that are used for one purpose: x, y and their numbers in the source, see Raw."""

    x: np.ndarray
    y: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True)
class Named:
    """What to call rows, classes and columns in messages: by their names in the files, else by their numbers."""

    reading: Reading

    def row(self, split: str, part: Part, position: int) -> str:
        """A row by its position in a part; numbers are those of the source's arrays and count from 0."""
        number = int(part.rows[position])
        names = self.reading.train_names if split == "train" else self.reading.test_names
        if names:
            return names[number]
        return f"{'training' if split == 'train' else 'held-out'} row {number}"

    def classes(self, count: int) -> tuple[str, ...]:
        return self.reading.class_names or tuple(map(str, range(count)))

    def columns(self, numbers: Iterable[int]) -> list[str]:
        names = self.reading.columns
        return [names[number] if names else f"column {number}" for number in numbers]
