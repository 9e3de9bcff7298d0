"""From the columns of a table to numbers: every cell is a number, and one that changes is noted."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from unlearn_core.checks import InputError, shown
from unlearn_core.datasets.frame import Frame
from unlearn_core.datasets.labels import is_missing
from unlearn_core.datasets.raw import LARGEST
from unlearn_core.datasets.reading import Note, Words
from unlearn_core.datasets.row_names import RowNames, present, rows_note

EXACT = 2**53  # up to here a double holds every whole number
PLAIN = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]{0,14})(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,2})?")
NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
ZEROS = re.compile(r"[+-]?0[0-9]")
ODD = ("none", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity")
THOUSANDS = re.compile(r"[+-]?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?:\.[0-9]*)?")
COMMA = re.compile(r"[+-]?[0-9.]*,[0-9]+")


@dataclass(frozen=True)
class Column:
    """values: (n,) float64. zeros, rounded: positions of cells that lost zeros in front, or digits that count."""

    values: np.ndarray
    zeros: np.ndarray
    rounded: np.ndarray


NOWHERE = np.array([], dtype=np.int64)


def number_columns(frame: Frame) -> tuple[np.ndarray, tuple[Note, ...]]:
    """(n, columns) float64, and notes on what was changed.

    Raises:
        InputError: For text, and for values that are missing or not finite, with the row.
    """
    if not frame.columns:
        raise InputError(f"{frame.path}: there is no column besides the target")
    made, notes, names = [], [], frame.names
    for name, cells in frame.columns.items():
        where = f"{frame.path}: column {name}"
        column = _column(cells, names, where, typed=frame.typed)
        _check_finite(column.values, cells, names, where)
        made.append(column.values)
        lost = _changes("that lost the zeros in front", column.zeros, column, cells, name, names)
        notes += [lost, _changes("rounded to double precision", column.rounded, column, cells, name, names)]
    return np.column_stack(made), present(*notes)


def _changes(text: str, rows: np.ndarray, column: Column, cells: np.ndarray, name: str, names: RowNames) -> Note | None:
    def examples() -> Iterable[str]:
        for row in rows:
            yield f"{cells[row]} as {column.values[row]:.17g} in {names[row]}"

    rest = f"{text} in column {name}"
    return rows_note(Words(f"value {rest}", f"values {rest}"), rows, examples())


def _column(cells: np.ndarray, names: RowNames, where: str, *, typed: bool) -> Column:
    kind = cells.dtype.kind
    if kind in "biu":
        return Column(cells.astype(np.float64), NOWHERE, _rounded(cells))
    if kind == "f":
        values = cells.astype(np.float64)
        changed = (values.astype(cells.dtype) != cells) & ~np.isnan(values)
        return Column(values, NOWHERE, np.flatnonzero(changed))
    if kind == "O":
        return _parsed(cells, names, where, typed=typed)
    raise InputError(f"{where} holds {cells.dtype}, not numbers; write it as numbers, or leave it out")


def _rounded(cells: np.ndarray) -> np.ndarray:
    """Positions of whole numbers that no double holds."""
    if cells.dtype.itemsize < 8:
        return NOWHERE
    large = np.flatnonzero((cells > EXACT) | (cells < -EXACT))
    return large[[int(float(int(cells[row]))) != int(cells[row]) for row in large]] if len(large) else large


def _parsed(cells: np.ndarray, names: RowNames, where: str, *, typed: bool) -> Column:
    """Cells of text, or of objects of a typed file, where text is never a number."""
    values = np.empty(len(cells))
    zeros, rounded = [], []
    for row, cell in enumerate(cells):
        text = cell.strip() if isinstance(cell, str) else "" if cell is None else str(cell)
        number = not (typed and isinstance(cell, str))
        if number and PLAIN.fullmatch(text):
            values[row] = float(text)
            continue
        if not (number and NUMBER.fullmatch(text)):
            raise InputError(_no_number(text, cell, names[row], where))
        values[row] = float(text)
        if ZEROS.match(text):
            zeros.append(row)
        elif np.isfinite(values[row]) and _lost(Decimal(text), float(values[row])):
            rounded.append(row)
    return Column(values, np.array(zeros, dtype=np.int64), np.array(rounded, dtype=np.int64))


def _lost(written: Decimal, kept: float) -> bool:
    """Whether a whole number changed, or a small one vanished; other rounding is that of every decimal number."""
    whole = written == written.to_integral_value()
    return (whole and Decimal(kept) != written) or (kept == 0 and written != 0)


def _no_number(text: str, cell: Any, row: str, where: str) -> str:
    if is_missing(text) or text.lower() in ODD:
        return f"{where} has {text or 'no value'} in {row}; fill missing values in, or leave the rows out"
    if THOUSANDS.fullmatch(text):
        return f"{where} has {text!r} with commas between thousands or before decimals in {row}; write a point at most"
    if COMMA.fullmatch(text):
        return f"{where} has {text!r} with a decimal comma in {row}; write numbers with a point"
    if text.lower() in ("true", "false"):
        return f"{where} is text, such as {text!r} in {row}; write 1 and 0, or leave it out"
    what = "text" if isinstance(cell, (str, bytes)) else type(cell).__name__
    return f"{where} is {what}, such as {shown(text, 30)} in {row}; write it as numbers, or leave it out"


def _check_finite(values: np.ndarray, cells: np.ndarray, names: RowNames, where: str) -> None:
    bad = np.flatnonzero(~(np.abs(values) < LARGEST))  # written so that NaN fails too
    if len(bad):
        found = f"{cells[bad[0]]} in {names[bad[0]]}"
        raise InputError(f"{where} has {found}; fill missing values in, or leave the rows out")
