"""The record store: finished trials, appended and fsynced by workers, each process to a file of its own.

`SWEEP/records/<cell>/<start>-<unique>.jsonl` holds one trial per line; `start` is the number of lines that the cell had
when the file was begun, so lines have an order that no clock can upset. In an object store a trial is an object.
Readers keep the first record of each trial and ignore a torn last line, so a crash, a second writer or a restarted
worker can neither damage nor double anything.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow

from sweeps.files import Folder, Remote, append, child, contents, listing, writing
from sweeps.records import RUNG_COLUMNS, TEXTS, TRIAL_COLUMNS, TRUTH_VALUES, WHOLE_NUMBERS, flatten

Trial = dict[str, Any]


class CellWriter:
    """Appends the trials of one cell; each instance writes files of its own."""

    def __init__(self, sweep: Folder, cell: str) -> None:
        self._folder = child(sweep / "records", cell)
        self._file: Folder | None = None
        self._lines = -1  # of the cell, in an object store; not counted yet

    def append(self, trial: Trial) -> None:
        """Record one finished trial; it is on disk when this returns. Raises StorageError if it cannot be."""
        line = json.dumps(trial, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        file, self._file = self._file or self._begin(), None  # after a torn line the next one begins a file of its own
        append(file, line)
        if isinstance(file, Remote):
            self._lines += 1
        else:
            self._file = file

    def _begin(self) -> Folder:
        if isinstance(self._folder, Remote):
            self._lines = self._lines if self._lines >= 0 else _line_count(self._folder)
            return self._folder / part_name(self._lines)
        with writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / part_name(_line_count(self._folder))


def part_name(start: int) -> str:
    """A name for a new file with records, whose first line is number `start` of its cell."""
    return f"{start:08d}-{uuid.uuid4().hex}.jsonl"


def _start(name: str) -> int:
    number, dash, _ = name.rpartition("/")[2].partition("-")
    return int(number) if dash and number.isdecimal() else 0


def _line_count(cell: Folder) -> int:
    """One more than the highest number of a line in the cell."""
    names = [name for name, _ in listing(cell)]
    if isinstance(cell, Remote):  # objects hold a line each
        return max((_start(name) + 1 for name in names), default=0)
    return max((_start(name) + len(data.splitlines()) for name, data in contents(cell, names)), default=0)


def read_cell(sweep: Folder, cell: str) -> list[Trial]:
    """The cell's finished trials in the order they were written, each once."""
    return _read(child(sweep / "records", cell), levels=1)


def read_trials(sweep: Folder) -> list[Trial]:
    """All finished trials of the sweep, each once, cells in order of name."""
    return _read(sweep / "records", levels=2)


def _read(folder: Folder, *, levels: int) -> list[Trial]:
    found: dict[str, Trial] = {}
    parts = contents(folder, [name for name, _ in listing(folder, levels=levels)])
    for _, trial in sorted((item for part in parts for item in _lines(*part)), key=lambda item: item[0]):
        found.setdefault(trial["trial_id"], trial)
    return list(found.values())


def _lines(name: str, data: bytes) -> Iterator[tuple[tuple[str, int, int, str], Trial]]:
    """The trials in a file, each with its place in the order of all: of two writers' lines with the same number, that
    of the one who knew more lines when it began comes first."""
    cell, start = name.rpartition("/")[0], _start(name)
    for number, line in enumerate(data.splitlines(), start=start):
        try:
            trial = json.loads(line)
        except ValueError:
            continue  # torn by a crash while it was written: the trial was never counted as finished
        if isinstance(trial, dict) and "trial_id" in trial:
            yield (cell, number, -start, name), trial


FAILED = b',"error":"'  # in the line of a failed trial, and in no other: quotes inside values are escaped


def count_trials(sweep: Path, known: dict[Path, tuple[int, int]], mark: bytes = b"\n") -> int:
    """Number of recorded lines with `mark`, for progress displays; `known` remembers (size, count) by file between
    calls."""
    for part in (sweep / "records").glob("*/*.jsonl"):
        size, lines = known.get(part, (0, 0))
        if part.stat().st_size > size:
            with open(part, "rb") as file:
                file.seek(size)
                fresh = file.read()
            fresh = fresh[: fresh.rfind(b"\n") + 1]  # the rest of a line that is being written comes next time
            known[part] = (size + len(fresh), lines + fresh.count(mark))
    return sum(lines for _, lines in known.values())


def compact(sweep: Path, trials: Iterable[Trial]) -> Path:
    """Write `records.parquet`, one row per rung of the sweep's `trials`, in one step; returns its path."""
    ordered = sorted(trials, key=lambda trial: (trial["stage"], trial["trial_id"]))  # columns come as rows have them
    rows = [row for trial in ordered for row in flatten(trial)]
    columns = dict.fromkeys([*TRIAL_COLUMNS, *RUNG_COLUMNS]) | dict.fromkeys(name for row in rows for name in row)
    frame = pd.DataFrame(rows, columns=list(columns))
    numbers = {name: float for name in frame if _column_type(name) == pyarrow.float64()}
    frame = frame.astype(numbers).sort_values(["stage", "study", "proposal", "seed", "trial_id", "budget"])
    target = sweep / "records.parquet"
    temporary = target.with_name(f".records-{uuid.uuid4().hex[:8]}.parquet")
    schema = pyarrow.schema([(name, _column_type(name)) for name in frame])
    try:
        with writing(target):
            frame.to_parquet(temporary, index=False, engine="pyarrow", schema=schema)
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _column_type(name: Any) -> pyarrow.DataType:
    """The type of a column is fixed by its name, so a column without any value has it as well."""
    if name in TEXTS:
        return pyarrow.string()
    if name in WHOLE_NUMBERS:
        return pyarrow.int64()
    return pyarrow.bool_() if name in TRUTH_VALUES else pyarrow.float64()
