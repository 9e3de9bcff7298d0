"""A trial as a line of a file, and back. Standard library only.

A line is a JSON object that ends with a checksum of what stands before it, so a flipped bit is seen. A line that is
damaged, or that never was a record, gives no trial. This is no defence against somebody who means to change a result.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from sweeps.schema.line_checks import problem_with
from sweeps.schema.records import METRIC_PREFIX, RUNG_COLUMNS, TRIAL_COLUMNS, Rung, Trial
from sweeps.schema.stages import Stage

UNSEALED = 1  # the schema whose lines had no checksum yet

AFTER: dict[str, str] = {
    "regularity": "poison_fraction",
    "failed_parts": "victim_seconds",
    "test_accuracy": "primary_z",
}
"""Columns that stand elsewhere in a line than in a table: after which one."""
LAST = ("trial_seconds", "evaluation_seconds")
"""Columns that come after the rungs, and only where they are known."""

_MARK, _END = b',"checksum":"', b'"}'
_SEAL = len(_MARK) + 8 + len(_END)


class DamagedError(ValueError):
    """A line that is no record; the message says what is wrong with it."""


def to_line(trial: Trial) -> bytes:
    """The line that records a trial, with its checksum and its end.

    Raises:
        ValueError: A number is NaN or infinite.
    """
    return sealed(to_content(trial))


def from_line(line: bytes, parse: Callable[[bytes], Any] = json.loads) -> Trial:
    """The trial in a line.

    Args:
        line: Without its end.
        parse: A faster `json.loads`, for those who have one.

    Raises:
        DamagedError: The line is no record.
    """
    try:
        content = parse(line)
    except (ValueError, RecursionError):
        raise DamagedError("it is not JSON") from None
    if not isinstance(content, dict):
        raise DamagedError("it is not a JSON object")
    has_seal = content.pop("checksum", None) is not None
    if has_seal and not _is_whole(line):
        raise DamagedError("its checksum is that of another content")
    problem = problem_with(content)
    if problem is None and not has_seal and content["schema"] != UNSEALED:
        problem = "its checksum is missing"
    if problem:
        raise DamagedError(problem)
    return from_content(content)


def sealed(content: Mapping[str, Any]) -> bytes:
    """The line with this content, checksum and end."""
    body = json.dumps(content, allow_nan=False, separators=(",", ":")).encode()[:-1]
    return body + _MARK + _checksum(body) + _END + b"\n"


def _checksum(body: bytes) -> bytes:
    return b"%08x" % zlib.crc32(body)


def _is_whole(line: bytes) -> bool:
    body = line.rstrip()[:-_SEAL]
    return line.rstrip()[-_SEAL:] == _MARK + _checksum(body) + _END


def _ordered(columns: Iterable[str]) -> list[str]:
    """The columns of a table in the order of a line, which never changed, so that equal trials give equal lines."""
    names = [name for name in columns if name not in LAST]
    return sorted(names, key=lambda name: (names.index(AFTER.get(name) or name), name in AFTER))


_TRIAL_NAMES, _RUNG_NAMES = _ordered(TRIAL_COLUMNS), [*_ordered(RUNG_COLUMNS), METRIC_PREFIX]


def to_content(trial: Trial) -> dict[str, Any]:
    """What the line of a trial holds, as values of JSON."""
    content = {name: getattr(trial, name) for name in _TRIAL_NAMES}
    if trial.error:  # it may quote the name of a file that is no Unicode, which no table holds
        content["error"] = trial.error.encode("utf-8", "backslashreplace").decode()
    rungs = [{name: getattr(rung, name) for name in _RUNG_NAMES} for rung in trial.rungs]
    last = {name: getattr(trial, name) for name in LAST if getattr(trial, name) is not None}
    return content | {"rungs": rungs} | last


def from_content(content: Mapping[str, Any]) -> Trial:
    """The trial with this content, which is not checked; columns that it lacks are empty."""
    values: dict[str, Any] = {name: content.get(name) for name in TRIAL_COLUMNS}
    values["stage"] = Stage(values["stage"])
    return Trial(**values, rungs=tuple(map(_rung, content["rungs"])))


def _rung(content: Mapping[str, Any]) -> Rung:
    values: dict[str, Any] = {name: content.get(name) for name in RUNG_COLUMNS}
    return Rung(**values, metrics=content.get(METRIC_PREFIX) or {})
