"""Texts with labels in one tab-separated file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unlearn_core.checks import InputError, shown
from unlearn_core.datasets.labels import UNLABELLED, is_missing
from unlearn_core.datasets.reading import Note, Words, note
from unlearn_core.datasets.row_names import RowNames
from unlearn_core.host.files import read_text

HEADER = "sentence\tlabel"
MOST_LABEL = 10**6
UNQUOTED = Words("text whose quotes around it were taken away", "texts whose quotes around them were taken away")
STILL_QUOTED = Words(
    "text in quotes, kept as it is because other quotes in the file are no such",
    "texts in quotes, kept as they are because other quotes in the file are no such",
)
NO_DOWNLOAD = "; it is not downloaded"
# A row as pandas and the csv module write it: quotes stand around a text, and inside it each is doubled.
ROW = re.compile(r'(?:"([^"]*(?:""[^"]*)*)"|([^"\t\n]*))\t("?)([^"\t\n]*)\3(?:\n|\Z)|(\n)')

ROW_INSIDE = re.compile(r"\t[ ]*(?:[0-9]+|NA|N/A|NaN|nan|null|None)[ ]*\n")


class Line(NamedTuple):
    """A row of the file, the number of the line in which it begins, and whether its text was in quotes."""

    text: str
    label: str
    number: int
    quoted: bool


class TextFile(NamedTuple):
    """The texts of a file and their (n,) int64 labels; see Reading for the others. rows_found: with those left out."""

    texts: list[str]
    labels: np.ndarray
    names: RowNames
    rows_found: int
    left_out: tuple[Note, ...]
    coerced: tuple[Note, ...]
    warnings: tuple[Note, ...]


def read_tsv(file: Path) -> TextFile:
    """Texts, without the blanks around them, and labels.

    GLUE's SST-2 has a blank after every text, by which one with something added at the end would stand out. If all
    quotes of the file are such as pandas writes, those around texts are taken away. A file in which others occur was
    written without quoting, and all of them are part of its texts. Rows without a label are left out.

    Raises:
        InputError: For every defect, with the file and the line.
    """
    content = read_text(file, NO_DOWNLOAD).replace("\r\n", "\n").replace("\r", "\n")
    lines = content.split("\n")  # not splitlines, which also cuts at rarer characters
    _check_header(lines, file)
    quoted = _quoted_rows(content)
    rows = list(_plain_rows(lines, file) if quoted is None else quoted)
    labelled = [row for row in rows if not is_missing(row.label.strip())]
    if rows and not labelled:
        raise InputError(f"{file}: none of its {len(rows):,} rows has a label; take a file with labels")
    for row in labelled:
        _check(row, f"{file}, line {row.number}")
    name = f"{file.name}:"
    lost = [f"{name}{row.number}" for row in rows if is_missing(row.label.strip())]
    unquoted = [f"{name}{row.number}" for row in labelled if row.quoted]
    odd = [f"{name}{row.number}" for row in labelled if quoted is None and _looks_quoted(row.text)]
    return TextFile(
        texts=[row.text.strip() for row in labelled],
        labels=np.array([int(row.label) for row in labelled], dtype=np.int64),
        names=RowNames(name, np.array([row.number for row in labelled], dtype=np.int64)),
        rows_found=len(rows),
        left_out=(note(UNLABELLED, lost, are_rows=True),) if lost else (),
        coerced=(note(UNQUOTED, unquoted),) if unquoted else (),
        warnings=(note(STILL_QUOTED, odd),) if odd else (),
    )


def _check_header(lines: list[str], file: Path) -> None:
    first = lines[0].replace('"', "")
    if first == HEADER:
        return
    if lines == [""]:
        raise InputError(f"{file}: the file is empty; the first line must be {HEADER!r}")
    later = [number for number, line in enumerate(lines[:100], start=1) if line == HEADER]
    fix = f"delete the lines before line {later[0]}" if later else _header_fix(first)
    raise InputError(f"{file}, line 1: the first line must be {HEADER!r}, but is {shown(lines[0])}; {fix}")


def _header_fix(first: str) -> str:
    """What to do about a first line, without its quotes, that does not name the two columns."""
    if first in (f"\t{HEADER}", f"Unnamed: 0\t{HEADER}"):
        return "leave the index out, in pandas with index=False"
    names = [name.strip().lower() for name in re.split(r"[\t,;|]", first)]
    is_header = "label" in names or (len(names) > 1 and "\t" in first and not names[-1].lstrip("-").isdigit())
    if not is_header:
        return "add it"
    separated = "" if "\t" in first else ", separated by tabs"
    return f"write the columns sentence and label, in this order and no others{separated}"


def _quoted_rows(content: str) -> list[Line] | None:
    """The rows if quotes stand around texts wherever they stand, as pandas writes them; else None.

    Two texts of a file without quoting that begin with a quote look like one long text with rows inside it: such a file
    is read line by line.
    """
    if '\n"' not in content and not content.startswith('"'):
        return None
    rows, place, number = [], 0, 1
    while place < len(content):
        matched = ROW.match(content, place)
        if matched is None or ROW_INSIDE.search(matched[1] or ""):
            return None
        quoted, plain, _, label, empty = matched.groups()
        if empty is None and number > 1:
            text = plain if quoted is None else quoted.replace('""', '"')
            rows.append(Line(text, label, number, quoted is not None))
        number += matched[0].count("\n")
        place = matched.end()
    return rows


def _plain_rows(lines: list[str], file: Path) -> Iterator[Line]:
    for number, line in enumerate(lines[1:], start=2):
        if not line:
            continue
        text, tab, label = line.rpartition("\t")
        if not tab or "\t" in text:
            fix = "delete the comment" if line.startswith("#") else "write no tab in a text"
            raise InputError(f"{file}, line {number}: must be text, a tab and a label, but is {shown(line)}; {fix}")
        yield Line(text, label, number, quoted=False)


def _check(row: Line, where: str) -> None:
    if not row.text.strip():
        raise InputError(f"{where}: must be text, a tab and a label, but the text is empty")
    plain = re.fullmatch(r"0|[1-9][0-9]*", row.label)
    if not plain or len(row.label) > len(str(MOST_LABEL)) or int(row.label) >= MOST_LABEL:
        raise InputError(
            f"{where}: the label must be a whole number 0 .. classes - 1, written plainly, but is {shown(row.label)}"
        )


def _looks_quoted(text: str) -> bool:
    """Whether quotes stand around it, and those inside are doubled or come after a backslash."""
    return re.fullmatch(r'"[^"]*(?:(?:""|(?<=\\)")[^"]*)+"', text.strip()) is not None
