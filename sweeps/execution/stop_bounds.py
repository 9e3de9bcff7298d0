"""What a user can give as `stop`, checked without Ray, before it starts."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from unlearn_core.checks import InputError, shown

NUMBERS = ("proposal", "score", "best_score", "trials", "training_iteration", "time_total_s")
BY_BUDGET = ("efficacy", "utility_gap")
"""What a study reports for each budget: `efficacy/0.1`."""


def check_stop(stop: Any) -> None:
    """Raise InputError unless `stop` is a stopper, a function, or a mapping from reported numbers to bounds."""
    if isinstance(stop, Mapping):
        for name, bound in stop.items():
            _check_bound(name, bound)
    elif not callable(stop) or isinstance(stop, type):
        raise InputError(f"stop must be a ray.tune.Stopper object, a function or a mapping, but got {shown(stop)}")


def _check_bound(name: Any, bound: Any) -> None:
    first, _, budget = str(name).partition("/")
    if name not in NUMBERS and not (first in BY_BUDGET and budget):
        known = ", ".join((*NUMBERS, *(f"{column}/<budget>" for column in BY_BUDGET)))
        raise InputError(f"stop names {shown(name)}, which is no number that studies report; choose from {known}")
    if not isinstance(bound, Real) or isinstance(bound, bool) or math.isnan(bound):
        raise InputError(f"stop[{name!r}] must be a number, but got {shown(bound)}")
