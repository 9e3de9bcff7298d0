"""From records to `records.parquet`, in memory for a few thousand rows whatever the number of trials."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow

from sweeps.schema.records import COLUMNS, Trial, Value, flatten
from sweeps.storage.errors import writing
from sweeps.storage.record_log import Parts, folder_parts, read_parts

ROWS_AT_ONCE = 10_000
ORDER = ("proposal", "seed", "trial_id", "budget")  # of the rows of a study and stage; what is empty comes last
TYPES = {str: pyarrow.string(), int: pyarrow.int64(), bool: pyarrow.bool_(), float: pyarrow.float64()}


class Table(NamedTuple):
    """What `compact` wrote: the file, how many trials are in it, and how many of them failed."""

    path: Path
    trials: int
    failed: int


@dataclass
class Survey:
    """What a first look at the records finds, without keeping them.

    Attributes:
        pieces: (stage, study, task) of the groups of rows.
        doubled: Ids of trials that a task before holds already, by task.
        columns: Names of metrics as rungs have them, and the first rung, in the order of (stage, trial), that does.
    """

    pieces: set[tuple[str, str, str]] = field(default_factory=set)
    doubled: dict[str, set[str]] = field(default_factory=dict)
    columns: dict[tuple[str, ...], tuple[str, str, int]] = field(default_factory=dict)
    trials: int = 0
    failed: int = 0

    def add(self, task: str, trial: Trial) -> None:
        self.pieces.add((trial.stage, trial.study, task))
        self.trials += 1
        self.failed += trial.error is not None
        for number, rung in enumerate(trial.rungs):
            names, place = tuple(rung.metrics), (trial.stage, trial.trial_id, number)
            self.columns[names] = min(place, self.columns.get(names, place))

    def schema(self) -> pyarrow.Schema:
        """Columns of the schema, then metrics in the order in which rows by stage and trial have them."""
        metrics = (name for names in sorted(self.columns, key=self.columns.__getitem__) for name in names)
        names = dict.fromkeys([*COLUMNS, *metrics])
        return pyarrow.schema([(name, column_type(name)) for name in names])


def compact(sweep: Path, target: Path | None = None) -> Table | None:
    """Write `records.parquet`, one row per rung of every trial, in one step.

    Reads the records a folder at a time: once for the columns, then for the rows in their order, by stage, study,
    proposal, seed, trial and budget. What is recorded meanwhile is left for the next time.

    Args:
        sweep: Folder of the sweep.
        target: Another file to write.

    Returns:
        None, and no file, if there are no trials.

    Raises:
        StorageError: If it cannot be written.
    """
    tasks = folder_parts(sweep)
    found = survey(sweep, tasks)
    if not found.trials:
        return None
    target = target or sweep / "records.parquet"
    temporary = target.with_name(f".records-{uuid.uuid4().hex[:8]}.parquet")
    try:
        with writing(target):
            _write(temporary, found.schema(), _rows(sweep, tasks, found))
            os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)
    return Table(target, found.trials, found.failed)


def survey(sweep: Path, tasks: Mapping[str, Parts]) -> Survey:
    """One pass over all records, for the columns and the trials that were recorded twice."""
    found, seen = Survey(), set[str]()
    for task, parts in tasks.items():
        for trial in read_parts(sweep / "records", parts):
            if trial.trial_id in seen:
                found.doubled.setdefault(task, set()).add(trial.trial_id)
            else:
                seen.add(trial.trial_id)
                found.add(task, trial)
    return found


def _rows(sweep: Path, tasks: Mapping[str, Parts], found: Survey) -> Iterator[dict[str, Value]]:
    """All rows in order."""
    for stage, study, task in sorted(found.pieces):
        trials = read_parts(sweep / "records", tasks[task])
        doubled = found.doubled.get(task, ())
        own = [t for t in trials if (t.stage, t.study) == (stage, study) and t.trial_id not in doubled]
        yield from sorted((row for trial in own for row in flatten(trial)), key=_place)


def _place(row: dict[str, Value]) -> tuple[tuple[bool, Any], ...]:
    return tuple((row[name] is None, row[name]) for name in ORDER)


def _write(path: Path, schema: pyarrow.Schema, rows: Iterator[dict[str, Value]]) -> None:
    from pyarrow.parquet import ParquetWriter

    with ParquetWriter(path, schema) as writer:
        some: list[dict[str, Value]] = []
        for row in rows:
            some.append(row)
            if len(some) == ROWS_AT_ONCE:
                writer.write_table(_table(some, schema))
                some = []
        if some:
            writer.write_table(_table(some, schema))


def _table(rows: list[dict[str, Value]], schema: pyarrow.Schema) -> pyarrow.Table:
    return pyarrow.table([_column([row.get(f.name) for row in rows], f.type) for f in schema], schema=schema)


def _column(values: list[Any], kind: pyarrow.DataType) -> pyarrow.Array:
    if kind == pyarrow.float64():  # FLOPs are whole numbers, some beyond those that a float can tell apart
        values = [None if value is None else float(value) for value in values]
    return pyarrow.array(values, kind)


def column_type(name: str) -> pyarrow.DataType:
    """The type of a column is fixed by its name, so a column without any value has it as well; metrics are numbers."""
    return TYPES[COLUMNS[name].kind if name in COLUMNS else float]
