"""Tables of numbers with a column of labels, for users' own data: CSV, Parquet or .npz."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from unlearn_core import checks
from unlearn_core.checks import InputError, close_names, shown
from unlearn_core.datasets.csv_file import read_csv
from unlearn_core.datasets.frame import Frame
from unlearn_core.datasets.labels import Classes, classes_of
from unlearn_core.datasets.npz_file import read_npz_table
from unlearn_core.datasets.numbers import number_columns
from unlearn_core.datasets.one_hot import mates, one_hot, parts
from unlearn_core.datasets.parquet_file import read_parquet
from unlearn_core.datasets.raw import Raw, check_raw, stratified_order
from unlearn_core.datasets.reading import Note, Reading, Words, note
from unlearn_core.registry import DATASETS

SPLIT_SEED = 0
NUMBERING = Words(
    "column that numbers the rows, as pandas writes its index",
    "columns that number the rows, as pandas writes its index",
)
SIBLINGS = Words(
    "column of the array that holds the target, used as an input",
    "columns of the array that holds the target, used as inputs",
)
READERS: dict[str, Callable[[Path], Frame]] = {".csv": read_csv, ".parquet": read_parquet, ".npz": read_npz_table}


@DATASETS.register("table")
@dataclass(frozen=True, kw_only=True)
class Table:
    """Own table: one .csv, .parquet or .npz file with numbers in every column, and labels in the column `target`.

    CSV: UTF-8, commas, the first line names the columns. Parquet: needs pyarrow. Npz: each array is a column (n,) or
    several (n, k); one-hot labels (n, k) are understood. Labels are whole numbers or words; classes count up in the
    order of the numbers, or in the sorted order of the words. Rows without a label are left out, as is the index that
    pandas writes along. Rows with other missing values and columns of text are refused: leave them out, or write them
    as numbers.
    """

    name: ClassVar[str] = "table"
    path: str  # the file; a relative path is looked up in the data root when there is one
    target: str = "target"  # column of labels
    held_out: float = 0.25  # share of the rows that is held out, with the class shares of the whole

    def __post_init__(self) -> None:
        checks.one_of("path: the ending", Path(self.path).suffix.lower(), tuple(READERS))
        checks.in_range("held_out", self.held_out, 0.01, 0.9)

    def load(self, data_root: Path | None, *, download: bool = False) -> Raw:
        """Read the file; it is never downloaded."""
        path = (data_root or Path()) / Path(self.path).expanduser()
        frame, decoded = with_one_target(READERS[path.suffix.lower()](path), self.target)
        found = len(frame.names)
        classes = classes_of(frame.columns[self.target], frame.names, f"{path}: column {self.target}")
        frame = frame.rows(classes.kept)
        mixed = _check_leak(frame, self.target)
        index = [name for name in frame.index if name != self.target]
        frame = frame.without(self.target, *index)
        x, changed = number_columns(frame)
        numbering = note(NUMBERING, (n or "no name" for n in index))
        reading = Reading(
            rows_found=found,
            class_names=classes.names,
            used=(f"{path.name}: {len(frame.columns)} columns as inputs, {self.target} as the label",),
            columns=tuple(frame.columns),
            left_out=(*classes.left_out, *((numbering,) if index else ()), *frame.left_out),
            coerced=(*decoded, *classes.coerced, *changed),
            warnings=(*classes.warnings, *mixed),
        )
        return split(x, classes, frame, reading, held_out=self.held_out)


def split(x: np.ndarray, classes: Classes, frame: Frame, reading: Reading, *, held_out: float) -> Raw:
    """Both parts of the rows x (n, columns); the same rows whatever the machine."""
    y, count, where = classes.indices, len(classes.names), str(frame.path)
    if len(x) < 2 * count:
        raise InputError(f"{where}: {len(x)} rows are too few for {count} classes")
    order = stratified_order(y, seed=SPLIT_SEED)
    cut = len(x) - min(max(round(held_out * len(x)), 1), len(x) - count)
    train, test = with_each_class(y, order[:cut], order[cut:])
    named = replace(reading, train_names=frame.names.at(train), test_names=frame.names.at(test))
    return check_raw(Raw(x[train], y[train], x[test], y[test], count, reading=named), where)


def with_each_class(y: np.ndarray, train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both parts, sorted, with a row of each class held out where the class has two: the last of its training rows.

    In exchange the first held-out row of the largest class goes to training, so that the parts keep their sizes, as
    long as that class keeps a row there. Parts that hold every class stay as they are.
    """
    learned, kept = train.tolist(), test.tolist()
    counts = np.bincount(y[test], minlength=int(y.max()) + 1)
    for label in np.flatnonzero(counts == 0):
        own = [row for row in learned if y[row] == label]
        if len(own) < 2:
            continue
        largest = int(counts.argmax())
        learned.remove(own[-1])
        kept.append(own[-1])
        counts[label] += 1
        if counts[largest] > 1:
            back = next(row for row in kept if y[row] == largest)
            kept.remove(back)
            learned.append(back)
            counts[largest] -= 1
    return np.sort(np.array(learned)), np.sort(np.array(kept))


def with_one_target(frame: Frame, target: str) -> tuple[Frame, tuple[Note, ...]]:
    """The table with the labels in one column, and a note if they were one-hot; InputError if there are none."""
    if target in frame.columns:
        return frame, ()
    names = frame.blocks.get(target, ())
    if names:
        rest = frame.without(*names)
        values = np.column_stack([frame.columns[name] for name in names])
        labels = values[:, 0] if len(names) == 1 else one_hot(values)
        if labels is None:
            raise InputError(
                f"{frame.path}: {target} has shape {values.shape} and is not one-hot, with one 1 in each row and 0 "
                "elsewhere; give it one label per row, shape (n,)"
            )
        decoded = f"one-hot rows of {target} read as the number of their column"  # a table has more than one
        notes = (Note(text=decoded, count=len(labels)),)
        return replace(rest, columns={**rest.columns, target: labels}), notes if len(names) > 1 else ()
    family = parts(frame.columns, target)
    problem = f"{frame.path}: target must be a column, but none is called {target!r}"
    if family:
        raise InputError(
            f"{problem}; {shown(family)} are its one-hot form: put the class of each row into one column in their place"
        )
    blocks = [name for name in frame.blocks if len(frame.blocks[name]) > 1]
    parted = {part for name in blocks for part in frame.blocks[name]}
    hint = close_names(target, [*(name for name in frame.columns if name not in parted), *blocks])
    raise InputError(f"{problem}; {hint}")


def _check_leak(frame: Frame, target: str) -> tuple[Note, ...]:
    """InputError if the target is one of several one-hot columns; a warning if it is cut out of a wider array."""
    others = mates(frame.without(*(name for name in frame.index if name != target)).columns, target)
    if others:
        block = next((name for name, columns in frame.blocks.items() if target in columns), "")
        fix = f"choose target {block!r}" if block else "put the class of each row into one column in their place"
        raise InputError(
            f"{frame.path}: column {target} is one-hot together with {shown(others)}, which would give the label away; "
            f"{fix}"
        )
    siblings = [name for block in frame.blocks.values() if target in block for name in block if name != target]
    return (note(SIBLINGS, siblings),) if siblings else ()
