"""One-line validators with uniform messages: the field, the value that came, and what would be right."""

from __future__ import annotations

import difflib
import itertools
import math
import numbers
from collections.abc import Iterable, Sequence


class InputError(ValueError):
    """Something the user gave is wrong; the message names the field, the value and the fix."""


def close_names(name: str, known: Iterable[str]) -> str:
    """A hint such as "did you mean 'gd'?", or the whole list when nothing is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    near = near or [known_name for known_name in names if name and known_name.startswith(name[:2].lower())][:3]
    if near:
        return "did you mean " + " or ".join(repr(n) for n in near) + "?"
    return "choose one of " + ", ".join(names)


def shown(value: object, limit: int = 100) -> str:
    """`value` as it stands in a message: on one line, and cut when it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # Python refuses to write out numbers of thousands of digits
        text = f"an oversized {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 3] + "..."


def positive(**values: float) -> None:
    """Raise InputError for a value that is not a finite number above 0; fields are named by keyword."""
    for field, value in values.items():
        if not (_is_finite(value) and value > 0):
            raise InputError(f"{field} must be a positive number, but got {value!r}")


def not_negative(**values: float) -> None:
    """Raise InputError for a value that is not a finite number of at least 0; fields are named by keyword."""
    for field, value in values.items():
        if not (_is_finite(value) and value >= 0):
            raise InputError(f"{field} must be zero or a positive number, but got {value!r}")


def _is_finite(value: object) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)


def in_range(field: str, value: float, low: float, high: float) -> None:
    """Raise InputError unless low <= value <= high."""
    if not (isinstance(value, numbers.Real) and low <= value <= high):
        raise InputError(f"{field} must lie in [{low:g}, {high:g}], but got {shown(value)}")


def one_of(field: str, value: object, allowed: Sequence[str]) -> None:
    """Raise InputError with the nearest names unless `value` is one of `allowed`."""
    if value not in allowed:
        raise InputError(f"{field} {value!r} is unknown; {close_names(str(value), allowed)}")


def increasing(field: str, values: Sequence[float]) -> None:
    """Raise InputError unless there are values and each is larger than the one before."""
    if not values or any(b <= a for a, b in itertools.pairwise(values)):
        raise InputError(f"{field} must increase strictly and not be empty, but got {list(values)!r}")
