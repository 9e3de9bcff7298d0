"""The record store: finished trials, appended and fsynced by workers, each process to a file of its own.

`SWEEP/records/<cell>/<unique>.jsonl` holds one trial per line. Readers keep the first record of each trial and ignore
a torn last line, so a crash, a second writer or a restarted worker can neither damage nor double anything.
"""

from __future__ import annotations

import itertools
import json
import os
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow

from sweeps.records import RUNG_COLUMNS, TEXTS, TRIAL_COLUMNS, TRUTH_VALUES, WHOLE_NUMBERS, flatten

Trial = dict[str, Any]


class CellWriter:
    """Appends the trials of one cell; each instance writes a file of its own."""

    def __init__(self, sweep: Path, cell: str) -> None:
        self._file = sweep / "records" / cell / f"{uuid.uuid4().hex}.jsonl"

    def append(self, trial: Trial) -> None:
        """Record one finished trial; it is on disk when this returns."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        line = json.dumps(trial, allow_nan=False, separators=(",", ":"))
        with open(self._file, "a") as file:
            file.write(line + "\n")
            file.flush()
            os.fsync(file.fileno())


def read_cell(sweep: Path, cell: str) -> list[Trial]:
    """The cell's finished trials in the order they were written, each once."""
    return _unique(sorted((sweep / "records" / cell).glob("*.jsonl")))


def read_trials(sweep: Path) -> list[Trial]:
    """All finished trials of the sweep, each once, cells in order of name."""
    return _unique(sorted((sweep / "records").glob("*/*.jsonl")))


def _unique(parts: Iterable[Path]) -> list[Trial]:
    found: dict[str, Trial] = {}
    for trial in sorted(itertools.chain.from_iterable(map(_lines, parts)), key=lambda trial: trial["finished_at"]):
        found.setdefault(trial["trial_id"], trial)
    return list(found.values())


def _lines(part: Path) -> Iterator[Trial]:
    for line in part.read_bytes().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue  # torn by a crash while it was written: the trial was never counted as finished


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
    rows = [row for trial in trials for row in flatten(trial)]
    columns = dict.fromkeys([*TRIAL_COLUMNS, *RUNG_COLUMNS]) | dict.fromkeys(name for row in rows for name in row)
    frame = pd.DataFrame(rows, columns=list(columns))
    numbers = {name: float for name in frame if _column_type(name) == pyarrow.float64()}
    frame = frame.astype(numbers).sort_values(["stage", "study", "proposal", "seed", "trial_id", "budget"])
    target = sweep / "records.parquet"
    temporary = target.with_name(f".records-{uuid.uuid4().hex[:8]}.parquet")
    schema = pyarrow.schema([(name, _column_type(name)) for name in frame])
    try:
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
