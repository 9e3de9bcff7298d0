"""Files with lines, and which of their trials count. Standard library only.

A file of a task is called `<start>-<unique>.jsonl`; `start` is the number of lines that the task had when the file was
begun, so lines have an order that no clock can upset. Of each trial the first line counts.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from sweeps.schema.lines import DamagedError, from_line
from sweeps.schema.records import Trial


class Damage(NamedTuple):
    """A line that is no record."""

    file: str
    number: int  # of the line in its file, from 1
    problem: str
    torn: bool  # it has no end: a crash while it was written, and its trial never counted as finished


Place = tuple[int, int, str]


def first_line(name: str) -> int:
    """The number of the first line of a file, from its name; 0 where it says none."""
    number, dash, _ = name.rpartition("/")[2].partition("-")
    return int(number) if dash and number.isdecimal() else 0


def read_files(
    files: Iterable[tuple[str, bytes]],
    damaged: Callable[[Damage], None],
    parse: Callable[[bytes], Any] = json.loads,
) -> list[Trial]:
    """The finished trials in files of one task, in the order they were written, each once.

    Args:
        files: Names and contents.
        damaged: Is called with every line that is no record.
        parse: A faster `json.loads`, for those who have one.
    """
    lines = (line for name, data in files for line in _lines(name, data, damaged, parse))
    return list(first_of_each(trial for _, trial in sorted(lines, key=lambda line: line[0])))


def first_of_each(trials: Iterable[Trial]) -> Iterator[Trial]:
    """The trials without those that came before."""
    seen: set[str] = set()
    for trial in trials:
        if trial.trial_id not in seen:
            seen.add(trial.trial_id)
            yield trial


def _lines(
    name: str, data: bytes, damaged: Callable[[Damage], None], parse: Callable[[bytes], Any]
) -> Iterator[tuple[Place, Trial]]:
    """The trials in a file, each with its place in the order of its study.

    Of two writers' lines with the same number, that of the one who knew more lines when it began comes first.

    Yields:
        Place and trial.
    """
    start = first_line(name)
    for number, line in enumerate(io.BytesIO(data)):  # splitlines would cut at a carriage return that damage left
        if not line.strip():
            continue
        try:
            yield (start + number, -start, name), from_line(line.rstrip(b"\r\n"), parse)
        except DamagedError as problem:
            damaged(Damage(name, number + 1, str(problem), torn=not line.endswith(b"\n")))
