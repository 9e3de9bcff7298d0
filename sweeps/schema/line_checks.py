"""What a line may hold: a line may be whole and come from elsewhere. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from sweeps.schema.columns import LARGEST, Column
from sweeps.schema.records import GOOD, METRIC_PREFIX, RUNG_COLUMNS, SCHEMA_VERSION, TRIAL_COLUMNS
from sweeps.schema.stages import Stage

NEVER_EMPTY = tuple(name for name, column in TRIAL_COLUMNS.items() if not column.may_be_empty)
NEEDED = (*NEVER_EMPTY, "proposal", "error", "rungs")
"""What every version wrote: a line that lacks one of these is no record."""
JSON_TEXTS = {name: column.json for name, column in TRIAL_COLUMNS.items() if column.json}
STATUSES = (*GOOD, "diverged", "failed")
ROUNDING = 1e-9
LARGEST_WHOLE = 2**63 - 1  # what the table's columns hold


def problem_with(content: Mapping[str, Any]) -> str | None:
    """What is wrong with the content of a line, in words; None if nothing is."""
    lacking = [name for name in NEEDED if name not in content]
    if lacking:
        return f"{lacking[0]} is missing"
    version = content["schema"]
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        return f"its schema is {str(version)[:20]}, but this version knows 1 to {SCHEMA_VERSION}"
    if content["stage"] not in list(Stage):
        return "stage is none of " + ", ".join(Stage)
    empty = [name for name in NEVER_EMPTY if content[name] is None]
    if empty:
        return f"{empty[0]} is empty"
    wrong = _wrong(content, _KINDS_OF_TRIALS) or _wrong_texts(content) or _wrong_rungs(content["rungs"])
    return wrong or (_wrong_reference(content) if content["stage"] == Stage.REFERENCE else _wrong_proposal(content))


def _wrong_reference(content: Mapping[str, Any]) -> str | None:
    """What the other trials of its scenario are compared with must be there."""
    if content.get("attack_took") is None:
        return "attack_took is empty in a reference"
    if content["error"]:  # it failed, and has none
        return None
    lacking = [name for rung in content["rungs"] for name in ("seconds", METRIC_PREFIX) if rung.get(name) is None]
    if lacking or not content["rungs"]:
        return f"a reference has no {(lacking or ['rungs'])[0]}"
    return None


def _wrong_proposal(content: Mapping[str, Any]) -> str | None:
    """What the search learns from must be there; only the references of an ensemble are no proposals."""
    number = content["proposal"]
    if number is None and content["stage"] == Stage.ENSEMBLE:
        return None
    if number is None or number < 0:
        return f"proposal {number} is no number of a proposal"
    if not isinstance(json.loads(content["settings"] or "{}").get("name"), str):
        return "its settings name no method"
    return None


def _wrong_texts(content: Mapping[str, Any]) -> str | None:
    return next(filter(None, (_wrong_json(name, content.get(name) or "") for name in JSON_TEXTS)), None)


@lru_cache(maxsize=1024)  # most of these texts are the same in many lines
def _wrong_json(name: str, text: str) -> str | None:
    """Texts that hold JSON must hold what readers take out of them."""
    kind = JSON_TEXTS[name]
    try:
        found = json.loads(text) if text else kind()
        if not isinstance(found, kind):
            return f"{name} is not JSON of a {kind.__name__}"
        if isinstance(found, list) and not all(map(_is_budget, found)):
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
    if rung.get("budget") is None or rung.get("status") not in STATUSES:
        return "a rung has no budget, or its status is none of " + ", ".join(STATUSES)
    strange = [name for name, value in metrics.items() if not _is_number(value)]
    if strange:
        return f"metric {strange[0]!r} is no finite number"
    return _wrong_names(tuple(metrics)) or _wrong(rung, _KINDS_OF_RUNGS) or _wrong_efficacy(rung)


@lru_cache(maxsize=256)  # many rungs have the same metrics
def _wrong_names(metrics: tuple[str, ...]) -> str | None:
    taken = [name for name in metrics if name in RESERVED]
    if taken:
        return f"a metric is called {taken[0]!r}, as a column of the schema"
    return None if all(map(_is_unicode, metrics)) else "the name of a metric is no Unicode"


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


def _between(least: float, most: float) -> Callable[[Any], bool]:
    return lambda value: value is None or (type(value) in (int, float) and least <= value <= most)  # NaN is not


_is_number = _between(-LARGEST, LARGEST)


def _is_budget(value: Any) -> bool:
    return value is not None and _KINDS_OF_RUNGS["budget"](value)


def _fits(column: Column) -> Callable[[Any], bool]:
    """What a column can hold."""
    kinds = {str: _is_text, int: _is_whole_number, bool: _is_truth_value}
    return kinds.get(column.kind) or _between(column.least, column.most)


_KINDS_OF_TRIALS = {name: _fits(column) for name, column in TRIAL_COLUMNS.items()}
_KINDS_OF_RUNGS = {name: _fits(column) for name, column in RUNG_COLUMNS.items()}
RESERVED = {*TRIAL_COLUMNS, *RUNG_COLUMNS, METRIC_PREFIX, "rungs"} - {"test_accuracy"}
"""Names that a metric cannot have."""
