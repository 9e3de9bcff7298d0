"""Ranges that a search may draw settings from. Any search library can read them; none is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unlearn_core import checks


@dataclass(frozen=True)
class Float:
    """A real number in [low, high]; `log` draws its logarithm uniformly."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        checks.increasing("range of a Float", [self.low, self.high])
        if self.log:
            checks.positive(low=self.low)


@dataclass(frozen=True)
class Int:
    """A whole number in [low, high], both included."""

    low: int
    high: int
    log: bool = False

    def __post_init__(self) -> None:
        checks.increasing("range of an Int", [self.low, self.high])
        if self.log:
            checks.positive(low=self.low)


@dataclass(frozen=True)
class Choice:
    """One of a few values."""

    options: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.options:
            raise checks.InputError("a Choice needs at least one option, but got none")


Range = Float | Int | Choice


def in_words(span: Range) -> str:
    """A range as text, such as `0.001 to 0.1, log`."""
    if isinstance(span, Choice):
        return " or ".join(map(str, span.options))
    return f"{span.low:g} to {span.high:g}" + (", log" if span.log else "")
