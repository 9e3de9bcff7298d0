"""What `sweep.json` holds, entry by entry, so that nobody who reads it trips. Standard library only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

Check = Callable[[Any], bool]


def _is(*kinds: type) -> Check:
    return lambda value: type(value) in kinds


def _list(fits: Check) -> Check:
    return lambda value: type(value) is list and all(map(fits, value))


def _entries(needed: Mapping[str, Check], more: Mapping[str, Check] | None = None) -> Check:
    """Whether something is a mapping of `needed` entries, and of no others but `more`."""
    known = {**needed, **(more or {})}
    return lambda value: (
        type(value) is dict
        and needed.keys() <= value.keys() <= known.keys()
        and all(known[name](entry) for name, entry in value.items())
    )


_NOTE = _entries({"count": _is(int), "text": _is(str), "examples": _list(_is(str))}, {"rows": _is(int)})
_SPLIT = _entries(
    {
        "name": lambda name: name in ("train", "validation", "test"),
        "rows": _is(int),
        "per_class": _list(_is(int)),
        "low": _is(int, float),
        "high": _is(int, float),
    }
)
_CARD = _entries(
    {
        "name": _is(str),
        "kind": _is(str),
        "classes": _list(_is(str)),
        "shape": _list(_is(int)),
        "splits": lambda splits: _list(_SPLIT)(splits) and len({split["name"] for split in splits}) == len(splits) == 3,
    },
    {
        **dict.fromkeys(("used", "columns", "errors"), _list(_is(str))),
        **dict.fromkeys(("left_out", "coerced", "facts", "absent"), _list(_NOTE)),
        **dict.fromkeys(("duplicates", "overlaps", "contradictions", "suspicions"), _list(_NOTE)),
    },
)


def _is_card(value: Any) -> bool:
    """Whether something is a data card with rows of each class in each set; None where the data has no card."""
    if value is None or not _CARD(value):
        return value is None
    return all(len(split["per_class"]) == len(value["classes"]) for split in value["splits"])


def _is_named(value: Any) -> bool:
    """An item of a list of attacks or methods."""
    return type(value) is str or (
        type(value) is dict and all(type(value.get(key, "")) is str for key in ("label", "name"))
    )


_SPEC: dict[str, Check] = {
    "attacks": _list(_is_named),
    "methods": _list(_is_named),
    "seeds": lambda seeds: type(seeds) is dict and all(map(_list(_is_seed), seeds.values())),
    "utility_tolerance": lambda share: _is(int, float)(share) and 0 <= share <= 1,
}


def _is_seed(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_spec(value: Any) -> bool:
    """Whether settings hold what a report reads in them in the form that it has there."""
    return type(value) is dict and all(fits(value[name]) for name, fits in _SPEC.items() if name in value)


def _is_time(value: Any) -> bool:
    try:
        datetime.fromisoformat(value).timestamp()
    except (TypeError, ValueError, OverflowError):
        return False
    return True


MANIFEST_KINDS: dict[str, Check] = {
    "name": _is(str),
    "command": _is(str),
    "spec": _is_spec,
    "identity": _is(str),
    "versions": _is(dict),
    "code_version": _is(str),
    "started_at": _is_time,
    "machine": _is(dict),
    "metrics": _is(dict),
    "methods": _is(dict),
    "data": _is(str),
    "card": _is_card,
}
"""Entries of `sweep.json` and what each of them is."""


def wrong_in_manifest(content: dict[str, Any]) -> list[str]:
    """Entries of `sweep.json` that are something else than they must be."""
    return [name for name, fits in MANIFEST_KINDS.items() if name in content and not fits(content[name])]
