"""Proposals that need no search library: defaults, grids, and how many there are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from sweeps.spec import Method, Search
from unlearn_core.space import Choice, Int, Range


class Proposal(NamedTuple):
    """A method and the settings chosen for it (those that are not fixed)."""

    method: str
    chosen: dict[str, Any]


class Finished(NamedTuple):
    """A proposal with what it reached; larger is better."""

    proposal: Proposal
    value: float


def proposal_count(search: Search, methods: Mapping[str, Method]) -> int:
    """How many proposals a study makes."""
    if search.sampler == "grid":
        (method,) = methods.values()
        return len(grid(method, search.grid_points))
    return max(search.trials, len(methods))


def defaults(method: Method) -> dict[str, Any]:
    """The method's default for every setting that is searched."""
    settings = method.build({})
    return {key: getattr(settings, key) for key in method.space()}


def grid(method: Method, points: int) -> list[dict[str, Any]]:
    """All combinations of `points` values per numeric range and every option of each choice."""
    space = method.space()
    axes = [_points(span, points) for span in space.values()]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*axes)]


def _points(span: Range, points: int) -> list[Any]:
    if isinstance(span, Choice):
        return list(span.options)
    if points == 1:
        ends = (span.low, span.high)
        middle = math.sqrt(ends[0] * ends[1]) if span.log else sum(ends) / 2
        return [round(middle) if isinstance(span, Int) else middle]
    steps = [i / (points - 1) for i in range(points)]
    if span.log:
        values = [span.low * (span.high / span.low) ** step for step in steps]
    else:
        values = [span.low + (span.high - span.low) * step for step in steps]
    return sorted({round(v) for v in values}) if isinstance(span, Int) else values
