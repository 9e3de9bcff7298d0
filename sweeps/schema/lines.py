"""A trial as a line of a file, and back: what was damaged, or never was a record, is no trial. Standard library only.

A line ends with a checksum of what stands before it, so a flipped bit is seen. Values are checked as well: a line may
be whole and come from elsewhere. Neither is a defence against somebody who means to change a result.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from sweeps.schema.records import (
    GOOD,
    METRIC_PREFIX,
    RUNG_COLUMNS,
    SCHEMA_VERSION,
    TEXTS,
    TRIAL_COLUMNS,
    TRUTH_VALUES,
    WHOLE_NUMBERS,
)
from sweeps.schema.stages import Stage

Trial = dict[str, Any]

UNSEALED = 1  # the schema whose lines had no checksum yet
NEEDED = ("schema", "trial_id", "stage", "study", "attack", "method", "seed", "settings", "proposal", "error", "rungs")
"""What readers look up without asking: a line that lacks one of these is no record."""
FILLED = ("trial_id", "study", "attack", "method", "settings", "seed")
"""Of these, those that are never empty."""
STATUSES = (*GOOD, "diverged", "failed")
JSON_TEXTS = {"settings": dict, "attack_settings": dict, "machine": dict, "chosen_for": list}
SHARES = ("test_accuracy", "oracle_test_accuracy", "corrupted_test_accuracy", "budget", "discovery_rate")
AMOUNTS = ("flops", "seconds", "steps", "sample_passes", "budget_spent", "oracle_flops", "oracle_seconds")
ROUNDING = 1e-9
LARGEST_WHOLE, LARGEST = 2**63 - 1, 1e300  # what the table's columns hold

_MARK, _END = b',"checksum":"', b'"}'
_SEAL = len(_MARK) + 8 + len(_END)


class DamagedError(ValueError):
    """A line that is no record; the message says what is wrong with it."""


def to_line(trial: Mapping[str, Any]) -> bytes:
    """The line that records a trial, with its checksum and its end. Raises ValueError for NaN and infinity."""
    told = trial.get("error")
    if isinstance(told, str):  # it may quote the name of a file that is no Unicode, which no table holds
        trial = {**trial, "error": told.encode("utf-8", "backslashreplace").decode()}
    body = json.dumps(trial, allow_nan=False, separators=(",", ":")).encode()[:-1]
    return body + _MARK + _checksum(body) + _END + b"\n"


def from_line(line: bytes, parse: Callable[[bytes], Any] = json.loads) -> Trial:
    """The trial in a line without its end. parse: a faster `json.loads` for those who have one. Raises DamagedError."""
    try:
        trial = parse(line)
    except (ValueError, RecursionError):
        raise DamagedError("it is not JSON") from None
    if not isinstance(trial, dict):
        raise DamagedError("it is not a JSON object")
    sealed = trial.pop("checksum", None) is not None
    if sealed and not _is_whole(line):
        raise DamagedError("its checksum is that of another content")
    problem = problem_with(trial)
    if problem is None and not sealed and trial["schema"] != UNSEALED:
        problem = "its checksum is missing"
    if problem:
        raise DamagedError(problem)
    return trial


def _checksum(body: bytes) -> bytes:
    return b"%08x" % zlib.crc32(body)


def _is_whole(line: bytes) -> bool:
    body = line.rstrip()[:-_SEAL]
    return line.rstrip()[-_SEAL:] == _MARK + _checksum(body) + _END


def problem_with(trial: Mapping[str, Any]) -> str | None:
    """What in a trial cannot be, in words; None if nothing is."""
    lacking = [name for name in NEEDED if name not in trial]
    if lacking:
        return f"{lacking[0]} is missing"
    version = trial["schema"]
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        return f"its schema is {str(version)[:20]}, but this version knows 1 to {SCHEMA_VERSION}"
    if trial["stage"] not in list(Stage):
        return "stage is none of " + ", ".join(Stage)
    empty = [name for name in FILLED if trial[name] is None]
    if empty:
        return f"{empty[0]} is empty"
    wrong = _wrong(trial, _TRIAL_KINDS) or _wrong_texts(trial) or _wrong_rungs(trial["rungs"])
    return wrong or (_wrong_reference(trial) if trial["stage"] == Stage.REFERENCE else _wrong_proposal(trial))


def _wrong_reference(trial: Mapping[str, Any]) -> str | None:
    """What the other trials of its scenario are compared with must be there."""
    if trial.get("attack_took") is None:
        return "attack_took is empty in a reference"
    if trial["error"]:  # it failed, and has none
        return None
    lacking = [name for rung in trial["rungs"] for name in ("seconds", METRIC_PREFIX) if rung.get(name) is None]
    if lacking or not trial["rungs"]:
        return f"a reference has no {(lacking or ['rungs'])[0]}"
    return None


def _wrong_proposal(trial: Mapping[str, Any]) -> str | None:
    """What the search learns from must be there; only the references of an ensemble are no proposals."""
    number = trial["proposal"]
    if number is None and trial["stage"] == Stage.ENSEMBLE:
        return None
    if number is None or number < 0:
        return f"proposal {number} is no number of a proposal"
    if not isinstance(json.loads(trial["settings"] or "{}").get("name"), str):
        return "its settings name no method"
    return None


def _wrong_texts(trial: Mapping[str, Any]) -> str | None:
    """Texts that hold JSON must hold what readers take out of them."""
    for name, kind in JSON_TEXTS.items():
        text = trial.get(name)
        try:
            found = json.loads(text) if text else None
            if text and not isinstance(found, kind):
                return f"{name} is not JSON of a {kind.__name__}"
            if kind is list and not all(_is_share(budget) and budget is not None for budget in found or ()):
                return f"{name} lists something else than budgets"
        except (ValueError, RecursionError):
            return f"{name} is not JSON"
    return None


def _wrong_rungs(rungs: Any) -> str | None:
    if not isinstance(rungs, list) or not all(isinstance(rung, dict) for rung in rungs):
        return "rungs is not a list of objects"
    return next(filter(None, map(_wrong_rung, rungs)), None)


def _wrong_rung(rung: Mapping[str, Any]) -> str | None:
    metrics = rung.get(METRIC_PREFIX) or {}
    if not isinstance(metrics, dict):
        return f"{METRIC_PREFIX} is not an object"
    if "budget" not in rung or rung.get("status") not in STATUSES:
        return "a rung has no budget, or its status is none of " + ", ".join(STATUSES)
    taken = [name for name in metrics if name in RESERVED]
    if taken:
        return f"a metric is called {taken[0]!r}, as a column of the schema"
    strange = [name for name, value in metrics.items() if not _is_number(value)]
    if strange:
        return f"metric {strange[0]!r} is no finite number"
    if not all(map(_is_unicode, metrics)):
        return "the name of a metric is no Unicode"
    return _wrong(rung, _RUNG_KINDS) or _wrong_efficacy(rung)


def _wrong_efficacy(rung: Mapping[str, Any]) -> str | None:
    removal, efficacy = rung.get("removal"), rung.get("efficacy")
    if (removal is None) != (efficacy is None):
        return "only one of removal and efficacy is there"
    if removal is not None and abs(1 - abs(1 - removal) - efficacy) > ROUNDING * max(1.0, abs(removal)):
        return f"efficacy {efficacy:.6g} does not follow from removal {removal:.6g}"
    if (efficacy is None) != (rung.get("score") is None):
        return "only one of efficacy and score is there"
    return None


def _wrong(values: Mapping[str, Any], kinds: Mapping[str, Callable[[Any], bool]]) -> str | None:
    """The first value that its column cannot hold."""
    for name, fits in kinds.items():
        if name in values and not fits(values[name]):
            return f"{name} is {str(values[name])[:40]!r}, which its column cannot hold"
    return None


def _is_text(value: Any) -> bool:
    return value is None or (type(value) is str and _is_unicode(value))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_whole_number(value: Any) -> bool:
    return value is None or (type(value) is int and -LARGEST_WHOLE <= value <= LARGEST_WHOLE)


def _is_truth_value(value: Any) -> bool:
    return value is None or type(value) is bool


def _is_number(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and -LARGEST <= value <= LARGEST)  # NaN is not


def _is_amount(value: Any) -> bool:
    return value is None or (_is_number(value) and value >= 0)


def _is_share(value: Any) -> bool:
    return value is None or (_is_number(value) and 0 <= value <= 1)


def _fits(name: str) -> Callable[[Any], bool]:
    """What a column can hold."""
    for names, fits in (
        (TEXTS, _is_text),
        (WHOLE_NUMBERS, _is_whole_number),
        (TRUTH_VALUES, _is_truth_value),
        (SHARES, _is_share),
        (AMOUNTS, _is_amount),
    ):
        if name in names:
            return fits
    return _is_number


_TRIAL_KINDS = {name: _fits(name) for name in TRIAL_COLUMNS}
_RUNG_KINDS = {name: _fits(name) for name in RUNG_COLUMNS}
RESERVED = {*TRIAL_COLUMNS, *RUNG_COLUMNS, METRIC_PREFIX, "rungs"} - {"test_accuracy"}
"""Names that a metric cannot have."""
