"""Tables of numbers with a column of labels, for users' own data: CSV, Parquet or .npz."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from unlearn_core import checks
from unlearn_core.checks import InputError, close_names, shown
from unlearn_core.datasets.npz import open_npz
from unlearn_core.datasets.raw import LARGEST, Raw, check_raw, stratified_order
from unlearn_core.registry import DATASETS

SPLIT_SEED = 0
MOST_CLASSES = 1000
Columns = dict[str, np.ndarray]  # name to (n,) values: numbers, or text


@DATASETS.register("table")
@dataclass(frozen=True, kw_only=True)
class Table:
    """Own table: one .csv, .parquet or .npz file with numbers in every column, and labels in the column `target`.

    CSV: UTF-8, commas, the first line names the columns. Parquet: needs pyarrow. Npz: each array is a column (n,) or
    several (n, k). Labels are whole numbers or words; classes count up in their sorted order. Rows with missing values
    and columns of text are refused: leave them out, or write them as numbers.
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
        if not path.is_file():
            raise InputError(f"{path.absolute()}: there is no such file")
        columns = READERS[path.suffix.lower()](path)
        if self.target not in columns:
            hint = close_names(self.target, columns)
            raise InputError(f"{path}: target must be a column, but none is called {self.target!r}; {hint}")
        y, classes = class_indices(columns.pop(self.target), f"{path}: column {self.target}")
        return split(number_columns(columns, path), y, classes, held_out=self.held_out, where=str(path))


def split(x: np.ndarray, y: np.ndarray, classes: int, *, held_out: float, where: str) -> Raw:
    """Both parts of the rows x (n, columns), y (n,); the same rows whatever the machine."""
    if len(x) < 2 * classes:
        raise InputError(f"{where}: {len(x)} rows are too few for {classes} classes")
    order = stratified_order(y, seed=SPLIT_SEED)
    cut = len(x) - min(max(round(held_out * len(x)), 1), len(x) - classes)
    train, test = np.sort(order[:cut]), np.sort(order[cut:])
    return check_raw(Raw(x[train], y[train], x[test], y[test], classes), where)


def number_columns(columns: Mapping[str, np.ndarray], path: Path) -> np.ndarray:
    """(n, columns) float64. Raises InputError for text, and for values that are missing or not finite."""
    if not columns:
        raise InputError(f"{path}: there is no column besides the target")
    for name, values in columns.items():
        if values.dtype.kind not in "biuf":
            example = shown(next((str(v) for v in values if not _is_number(v)), str(values[0])), 30)
            raise InputError(f"{path}: column {name} is text, such as {example}; write it as numbers, or leave it out")
        bad = np.flatnonzero(~(np.abs(values.astype(np.float64)) < LARGEST))
        if len(bad):
            what = f"{values[bad[0]]} in row {bad[0] + 1}"
            raise InputError(f"{path}: column {name} has {what}; fill missing values in, or leave the rows out")
    return np.column_stack([values.astype(np.float64) for values in columns.values()])


def class_indices(values: np.ndarray, where: str) -> tuple[np.ndarray, int]:
    """(n,) int64 classes in the sorted order of the labels, and how many there are."""
    if values.dtype.kind == "f":
        bad = values[~((values == np.rint(values)) & np.isfinite(values))]
        if len(bad):
            raise InputError(f"{where} has the label {bad[0]}; labels must be whole numbers or words, none missing")
        values = values.astype(np.int64)
    elif values.dtype.kind not in "biu":
        values = np.array([str(v).strip() for v in values])
        if (values == "").any():
            raise InputError(f"{where} has no label in row {np.flatnonzero(values == '')[0] + 1}")
    labels, indices = np.unique(values, return_inverse=True)
    if not 2 <= len(labels) <= MOST_CLASSES:
        found = f"only {labels[0]}" if len(labels) == 1 else f"{len(labels)} different labels"
        raise InputError(f"{where} has {found}; it must hold 2 to {MOST_CLASSES} classes")
    return indices.astype(np.int64), len(labels)


def read_csv(path: Path) -> Columns:
    """Columns by name; those of numbers alone as float64, others as text. An empty cell is a missing number, NaN."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            names = next(lines, [])
            rows = [_cells(row, names, f"{path}, line {lines.line_num}") for row in lines if row]
    except (OSError, UnicodeDecodeError, csv.Error) as problem:
        raise InputError(f"{path}: cannot be read ({problem})") from None
    if not names or len(set(names)) < len(names) or not all(names):
        raise InputError(f"{path}: the first line must name each column once, but is {shown(','.join(names))}")
    if not rows:
        raise InputError(f"{path}: there are no rows below the names of the columns")
    return {name: _numbers(cells) for name, cells in zip(names, zip(*rows, strict=True), strict=True)}


def _cells(row: list[str], names: list[str], where: str) -> list[str]:
    if len(row) != len(names):
        raise InputError(f"{where}: must have {len(names)} values, as the first line, but has {len(row)}")
    return [cell.strip() for cell in row]


def _numbers(cells: tuple[str, ...]) -> np.ndarray:
    try:
        return np.array([float(cell or "nan") for cell in cells])
    except ValueError:
        return np.array(cells)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def read_parquet(path: Path) -> Columns:
    """Columns by name; a missing number becomes NaN, other missing values empty text."""
    try:
        import pyarrow as arrow  # imported here because only this format needs it
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"{path}: Parquet files need pyarrow; install it, or save the table as .csv") from None
    try:
        table = parquet.ParquetFile(path).read()
    except (OSError, arrow.ArrowException) as problem:
        raise InputError(f"{path}: cannot be read ({problem})") from None
    if not len(table):
        raise InputError(f"{path}: there are no rows")
    return {name: _arrow_values(table.column(name)) for name in table.column_names}


def _arrow_values(column: Any) -> np.ndarray:
    from pyarrow import types

    kind = column.type
    if types.is_integer(kind) or types.is_floating(kind):
        return np.asarray(column.to_numpy())
    values = column.to_pylist()
    if types.is_boolean(kind) and not column.null_count:
        return np.array(values)
    return np.array(["" if value is None else str(value) for value in values])


def read_npz(path: Path) -> Columns:
    """Columns by name; array `x` with several columns gives x.0, x.1, ..."""
    columns: Columns = {}
    for name, values in open_npz(path).items():
        if values.ndim not in (1, 2) or not len(values):
            raise InputError(f"{path}: {name} must have shape (n,) or (n, columns), but has {values.shape}")
        parts = {name: values} if values.ndim == 1 else {f"{name}.{i}": column for i, column in enumerate(values.T)}
        columns |= parts
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"{path}: columns must be of equal length, but have {shown(lengths)}")
    return columns


READERS: dict[str, Callable[[Path], Columns]] = {".csv": read_csv, ".parquet": read_parquet, ".npz": read_npz}
