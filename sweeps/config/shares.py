"""Shares that a sweep lists: budgets, and how much of the poison is discovered."""

from __future__ import annotations

from typing import Any

from sweeps.config.hints import share_hint
from unlearn_core import checks
from unlearn_core.checks import InputError, shown

SINGLE = 0.0  # discovery rate: the least there is, one poison of however many the attack makes


def share(value: Any, where: str) -> float:
    """A number in [0, 1], also from text. Raises InputError."""
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if number != number:
        raise InputError(f"{where} must be a number in [0, 1], but got {shown(value)}{share_hint(value)}")
    if not 0 <= number <= 1:
        raise InputError(f"{where} must lie in [0, 1], but got {shown(number)}{share_hint(number)}")
    return number


def read_budgets(raw: Any) -> tuple[float, ...]:
    """The budgets as numbers; they must lie in (0, 1] and increase."""
    budgets = tuple(share(value, "budgets") for value in (raw if isinstance(raw, (list, tuple)) else [raw]))
    checks.increasing("budgets", budgets)
    if budgets[0] <= 0:
        raise InputError(f"budgets must be above 0, but got {budgets[0]!r}")
    return budgets


def read_rates(raw: Any) -> tuple[float, ...]:
    """Shares of the poisons in (0, 1]; the word `single` stands for one poison."""
    rates = tuple(map(_rate, raw if isinstance(raw, (list, tuple)) else [raw]))
    if not rates or len(set(rates)) < len(rates):
        raise InputError(
            f"discovery_rates must list distinct numbers in (0, 1], or `single` for one poison, but got {shown(raw)}"
        )
    return rates


def _rate(value: Any) -> float:
    if value == "single":
        return SINGLE
    rate = share(value, "discovery_rates other than `single`")
    if rate == 0:
        raise InputError(f"discovery_rates must be above 0, but got {value!r}; write `single` for one poison")
    return rate
