"""The record store: finished trials, appended and fsynced by workers, each process to another file.

`SWEEP/records/<task>/<start>-<unique>.jsonl` holds one trial per line (see `sweeps.schema.line_files`). In an object
store a trial is an object. Readers keep the first record of each trial and ignore a torn last line, so a crash, a
second writer or a restarted worker can neither damage nor double anything. A damaged line is named on stderr and left
out: its trial counts as not done, and is done again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json

from sweeps.schema.line_files import Damage, first_of_each, read_files
from sweeps.schema.lines import DamagedError, from_line, to_line
from sweeps.schema.records import Trial
from sweeps.storage.base import PART, Folder
from sweeps.storage.folders import at, child

Parts = Sequence[tuple[str, int]]
"""Files with records, relative to some folder, and how many bytes of each are read."""


class RecordWriter:
    """Appends the trials of one task; each instance writes its own files."""

    def __init__(self, sweep: Folder, task: str) -> None:
        self._lines = at(child(sweep / "records", task)).lines()

    def append(self, trial: Trial) -> None:
        """Record one finished trial; it is on disk when this returns. Raises StorageError if it cannot be."""
        self._lines.append(to_line(trial))


def read_folder(sweep: Folder, task: str) -> list[Trial]:
    """The task's finished trials in the order they were written, each once."""
    folder = child(sweep / "records", task)
    return read_parts(folder, at(folder).files(PART))


def read_own(sweep: Folder, task: str) -> list[Trial]:
    """The same, without lines that were copied from elsewhere: those of another task answer none of its questions."""
    return [trial for trial in read_folder(sweep, task) if trial.study == task]


def read_trials(sweep: Folder) -> list[Trial]:
    """All finished trials of the sweep, each once, tasks in order of name. Large sweeps are read by `iter_trials`."""
    return list(iter_trials(sweep))


def iter_trials(sweep: Folder) -> Iterator[Trial]:
    """The same trials, one task in memory at a time."""
    return first_of_each(
        trial for parts in folder_parts(sweep).values() for trial in read_parts(sweep / "records", parts)
    )


def folder_parts(sweep: Folder) -> dict[str, Parts]:
    """The files with records, by task, in order of the tasks' names, and how large they are now.

    Whoever reads so many bytes later finds the same trials.
    """
    tasks: dict[str, list[tuple[str, int]]] = {}
    for name, size in at(sweep / "records").files(PART, levels=2):
        tasks.setdefault(name.rpartition("/")[0], []).append((name, size))
    return dict(sorted(tasks.items()))


def read_parts(records: Folder, parts: Parts) -> list[Trial]:
    """The finished trials in files of one task, in the order they were written, each once."""
    sizes = dict(parts)
    files = ((name, data[: sizes[name]]) for name, data in at(records).contents(list(sizes)))
    return read_files(files, partial(_name_damage, records), parse)


def _name_damage(records: Folder, line: Damage) -> None:
    """Say once which line is damaged; one that was torn by a crash never counted as finished."""
    where = f"{records / line.file}, line {line.number}"
    if not line.torn and where not in _named:
        _named.add(where)
        print(f"damaged record: {where}: {line.problem}; it is left out, and its trial done again", file=sys.stderr)


_named: set[str] = set()
"""Places of damaged lines that this process has named."""


def first_without(file: Path, words: Collection[str]) -> int | None:
    """The number of the first record in a file that quotes none of the words; those that do are not parsed."""
    quoted = [json.dumps(word).encode() for word in words]
    with open(file, "rb") as lines:
        strange = ((n, line) for n, line in enumerate(lines, start=1) if not any(word in line for word in quoted))
        return next((n for n, line in strange if _is_record(line)), None)


def _is_record(line: bytes) -> bool:
    try:
        from_line(line.rstrip(b"\r\n"), parse)
    except DamagedError:
        return False
    return True


def parse(line: bytes) -> Any:
    """As `json.loads`, in a third of the time."""
    """As `json.loads`, in a third of the time."""
    try:
        return from_json(line)
    except ValueError:  # which takes texts that are no Unicode as well
        return json.loads(line)


FAILED = b',"error":"'  # in the line of a failed trial, and in no other: quotes inside values are escaped


class Counted(NamedTuple):
    """What was counted in a file so far."""

    size: int  # bytes
    trials: int
    failed: int


def count_trials(sweep: Path, known: dict[str, Counted]) -> int:
    """Number of recorded lines, for progress displays; `known` remembers what was counted, by file, between calls."""
    for name, size in at(sweep / "records").files(PART, levels=2):
        before = known.get(name, Counted(0, 0, 0))
        if size > before.size:
            with open(sweep / "records" / name, "rb") as file:
                file.seek(before.size)
                fresh = file.read()
            fresh = fresh[: fresh.rfind(b"\n") + 1]  # the rest of a line that is being written comes next time
            counts = before.trials + fresh.count(b"\n"), before.failed + fresh.count(FAILED)
            known[name] = Counted(before.size + len(fresh), *counts)
    return sum(counted.trials for counted in known.values())


def count_failed(known: Mapping[str, Counted]) -> int:
    """Number of failed trials among those that `count_trials` found."""
    return sum(counted.failed for counted in known.values())
