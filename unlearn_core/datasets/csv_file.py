"""Tables in CSV files."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unlearn_core.checks import InputError, shown
from unlearn_core.datasets.frame import Frame, text_cells
from unlearn_core.datasets.numbers import COMMA, NUMBER
from unlearn_core.datasets.reading import Words, note
from unlearn_core.datasets.row_names import RowNames
from unlearn_core.host.files import CELLS, read_text

INDEX = re.compile(r"Unnamed: 0(\.\d+)*")  # what pandas calls a column without a name; the first is its index
NAMELESS = Words("column without a name or a value", "columns without a name or a value")
SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}


class Line(NamedTuple):
    """A row of the file and the number of the line in which it begins."""

    cells: list[str]
    number: int


def read_csv(path: Path) -> Frame:
    """Columns of text by name, as they are written; empty lines are skipped.

    Raises:
        InputError: With the line for what is no table with commas and the names of its columns in the first line.
    """
    lines = _lines(path)
    header = lines[0] if lines else Line([], 1)
    names, rows = [name.strip() for name in header.cells], lines[1:]
    _check_header(names, header.number, rows[:1], path)
    if not rows:
        raise InputError(f"{path}: there are no rows below the names of the columns")
    for cells, number in rows:
        _check_length(cells, len(names), f"{path}, line {number}")
    columns = list(zip(*(line.cells for line in rows), strict=True))
    unused = [i for i, name in enumerate(names) if i and not name and not any(cell.strip() for cell in columns[i])]
    _check_names(names, unused, f"{path}, line {header.number}")
    named = {name: text_cells(columns[i]) for i, name in enumerate(names) if i not in unused}
    empty = note(NAMELESS, [f"column {i + 1}" for i in unused])
    return Frame(
        path=path,
        columns=named,
        typed=False,
        names=RowNames(f"{path.name}:", np.array([line.number for line in rows])),
        index=tuple(name for name in named if not name or INDEX.fullmatch(name)),
        left_out=(empty,) if unused else (),
    )


def _lines(path: Path) -> list[Line]:
    reader = csv.reader(io.StringIO(read_text(path, growth=CELLS), newline=""), strict=True)
    found, start = [], 1
    try:
        for cells in reader:
            if cells:
                found.append(Line(cells, start))
            start = reader.line_num + 1
    except csv.Error as problem:
        raise InputError(f"{path}, line {max(reader.line_num, start)}: cannot be read ({problem})") from None
    return found


def _check_header(names: list[str], line: int, first: list[Line], path: Path) -> None:
    """What else than names of columns may come first."""
    where, written = f"{path}, line {line}", shown(",".join(names), 60)
    if not any(names):
        raise InputError(f"{where}: the first line must name each column once, but is {written}")
    comment = names[0].startswith("#") and first and len(first[0].cells) != len(names)
    if comment or names[0].lower().startswith("sep="):
        raise InputError(f"{where}: is {written}, not the names of the columns; delete what stands above them")
    separator = next((mark for mark in SEPARATORS if mark in names[0]), "") if len(names) == 1 else ""
    if separator:
        row = ",".join(first[0].cells) if first else ""
        comma = next((cell for cell in row.split(separator) if COMMA.fullmatch(cell)), "")
        decimals = f", and numbers with a point instead of a decimal comma as in {comma}" if comma else ""
        raise InputError(
            f"{where}: has {SEPARATORS[separator]} between columns, as in {written}; write commas{decimals}"
        )
    if all(NUMBER.fullmatch(name) for name in names) and names != [str(i) for i in range(len(names))]:
        raise InputError(f"{where}: must name the columns, but holds numbers, {written}; add a line with names")


def _check_names(names: list[str], unused: list[int], where: str) -> None:
    kept = [name for i, name in enumerate(names) if i not in unused]
    twice = sorted({name for name in kept if kept.count(name) > 1} if len(set(kept)) < len(kept) else ())
    if twice:
        raise InputError(f"{where}: the first line must name each column once, but {shown(twice[0])} comes twice")
    nameless = [i + 1 for i, name in enumerate(names) if i and not name and i not in unused]
    if nameless:
        raise InputError(f"{where}: the first line must name each column once, but column {nameless[0]} has no name")


def _check_length(cells: list[str], count: int, where: str) -> None:
    if len(cells) == count:
        return
    text = ",".join(cells)
    fix = "write numbers with a point if they have decimal commas" if len(cells) > count else "fill the others in"
    fix = "delete the comment" if text.startswith("#") else fix
    raise InputError(
        f"{where}: must have {count} values, as the first line, but has {len(cells)}: {shown(text, 60)}; {fix}"
    )
