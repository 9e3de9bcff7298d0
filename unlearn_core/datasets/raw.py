"""Pixels, tokens or numbers, and labels, as they come from a source, and the checks that every source must pass."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np

from unlearn_core.checks import InputError
from unlearn_core.datasets.reading import Reading
from unlearn_core.seeding import derive

if TYPE_CHECKING:
    from unlearn_core.datasets.tokens import Tokenizer

LARGEST = 1e30  # magnitude of a number in a table, so that its square is finite, too
AXES = {"images": 4, "texts": 2, "numbers": 2}


class Raw(NamedTuple):
    """A source's two parts; a row's position in its part is the row's id.

    x_train, x_test: (n, height, width, channels) uint8 pixels; of text (n, length) int64 token ids; of a table
        (n, columns) float64 numbers in whatever unit.
    y_train, y_test: (n,) int64 in 0 .. classes - 1.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    classes: int
    tokenizer: Tokenizer | None = None  # of text
    made_by: str = ""  # of what is computed: the recipe, its identity in the place of values that differ by rounding
    reading: Reading = Reading()

    @property
    def kind(self) -> Literal["images", "texts", "numbers"]:
        if self.tokenizer is not None:
            return "texts"
        return "numbers" if np.issubdtype(self.x_train.dtype, np.floating) else "images"


class Source(Protocol):
    """A frozen dataclass of settings, registered in DATASETS."""

    @property
    def name(self) -> str: ...

    def load(self, data_root: Path | None, *, download: bool = False) -> Raw:
        """Read the data; InputError says what is missing or damaged, and where."""
        ...


def stratified_order(labels: np.ndarray, *, seed: int) -> np.ndarray:
    """A shuffle of the rows in which every prefix has nearly the class shares of the whole.

    The first rows hold one of each class, so that no prefix longer than the number of classes misses one.

    Args:
        labels: (n,) class indices.
        seed: Fixes the shuffle within and between classes.

    Returns:
        (n,) int64 row numbers.
    """
    # The legacy generator: numpy promises that its stream never changes, so data splits survive upgrades.
    shuffled = np.random.RandomState(derive(seed, "stratified order") % 2**32).permutation(len(labels))
    position = np.empty(len(labels))
    for label in np.unique(labels):
        members = np.flatnonzero(labels[shuffled] == label)
        position[members] = (np.arange(len(members)) + 0.5) / len(members)
        position[members[0]] = 0.0
    return shuffled[np.argsort(position, kind="stable")]


def check_raw(raw: Raw, where: str) -> Raw:
    """`raw` itself, or InputError if its shapes or labels cannot be used; `where` names the source in the message."""
    kind = raw.kind
    for part, x, y in (("training", raw.x_train, raw.y_train), ("held-out", raw.x_test, raw.y_test)):
        if x.ndim != AXES[kind] or y.ndim != 1 or len(x) != len(y):
            raise InputError(f"{where}: the {part} part has {kind} of shape {x.shape} but labels of shape {y.shape}")
        if not x.size:
            raise InputError(f"{where}: the {part} part is empty")
        if kind == "numbers" and not (np.abs(x) < LARGEST).all():  # written so that NaN fails too
            raise InputError(f"{where}: the {part} part has values that are missing, infinite or beyond {LARGEST:g}")
    if raw.x_train.shape[1:] != raw.x_test.shape[1:]:
        shapes = f"{raw.x_train.shape[1:]} and {raw.x_test.shape[1:]}"
        raise InputError(f"{where}: training and held-out {kind} differ in shape: {shapes}")
    _check_labels(raw, where)
    _check_counts(raw, where)
    return raw


def _check_counts(raw: Raw, where: str) -> None:
    """Rows in the files = rows used + rows listed as left out: a source that breaks this loses data in silence."""
    used, reading = len(raw.y_train) + len(raw.y_test), raw.reading
    left_out = sum(note.rows for note in reading.left_out)
    if reading.rows_found is not None and reading.rows_found != used + left_out:
        raise RuntimeError(
            f"{where}: {reading.rows_found} rows found, but {used} used and {left_out} listed as left out"
        )


def _check_labels(raw: Raw, where: str) -> None:
    present = np.unique(raw.y_train)
    if present[0] != 0 or present[-1] != raw.classes - 1 or len(present) != raw.classes:
        raise InputError(
            f"{where}: training labels must be 0 .. {raw.classes - 1} with none left out, but got {_listed(present)}; "
            f"{_numbering(present)}"
        )
    if raw.classes < 2:
        raise InputError(f"{where}: at least two classes are needed, but all training labels are {present[0]}")
    unknown = np.setdiff1d(raw.y_test, present)
    if len(unknown):
        raise InputError(f"{where}: held-out labels {_listed(unknown)} never occur in the training part")


def _numbering(present: np.ndarray) -> str:
    """How labels with gaps become those of classes that count from 0."""
    if np.array_equal(present, np.arange(1, len(present) + 1)):
        return "subtract 1 from all labels"
    return f"number the {len(present)} classes from 0 to {len(present) - 1}"


def _listed(values: np.ndarray) -> str:
    return ", ".join(map(str, values[:12])) + (", ..." if len(values) > 12 else "")
