"""The proposals of a study: how many there are, which settings each has, and which scores it may depend on.

Proposal n is a pure function of (seed, folder of the study, n, history), so resuming changes nothing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sweeps.config.outline import SearchedMethod
from sweeps.config.sections import MOST_PROPOSALS, Search
from sweeps.planning.proposal import Finished, Proposal
from unlearn_core.checks import InputError
from unlearn_core.space import Choice, Int, Range

if TYPE_CHECKING:
    from sweeps.config.choices import Method


def propose(
    search: Search, folder: str, number: int, history: Sequence[Finished], methods: Mapping[str, Method]
) -> Proposal:
    """One proposal of a study.

    The first of each method is its published default, so every method is tried at least with that.

    Args:
        search: How the sweep searches.
        folder: The study's folder, which makes its random numbers differ from those of other studies.
        number: Which proposal, counted from 0.
        history: The proposals 0 .. `known_to(search, number)` - 1.
        methods: The methods that the study searches over.
    """
    if search.sampler == "grid":
        (method,) = methods.values()
        return Proposal(method.name, next(itertools.islice(grid(method, search.grid_points), number, None)))
    names = list(methods)
    if number < len(names):
        return Proposal(names[number], defaults(methods[names[number]]))
    from sweeps.planning.optuna_search import suggest  # importing it costs a second

    return suggest(search, folder, number, history, methods)


def proposal_count(search: Search, methods: Mapping[str, SearchedMethod]) -> int:
    """How many proposals a study makes: one per method where there is nothing to search."""
    if search.sampler == "grid":
        (method,) = methods.values()
        return _grid_size(method, search.grid_points)
    if not any(method.space() for method in methods.values()):
        return len(methods)
    return max(search.trials, len(methods))


def known_to(search: Search, number: int) -> int:
    """How many proposals' scores proposal `number` may depend on.

    Those before its batch, so that a batch can run at once on any number of workers. None while settings are drawn
    at random, which needs no score.
    """
    drawn = max(1, search.startup)
    if search.sampler != "tpe" or number < drawn:
        return 0
    return drawn + (number - drawn) // search.batch * search.batch


def _grid_size(method: SearchedMethod, points: int) -> int:
    size = math.prod(len(_points(span, points)) for span in method.space().values())
    if size > MOST_PROPOSALS:
        raise InputError(
            f"search.grid_points {points} gives a grid of {size} points for {method.name}, more than {MOST_PROPOSALS}; "
            "lower it, or fix some settings of the method"
        )
    return size


def defaults(method: Method) -> dict[str, Any]:
    """The method's default for every setting that is searched."""
    settings = method.build({})
    return {key: getattr(settings, key) for key in method.space()}


def grid(method: SearchedMethod, points: int) -> Iterator[dict[str, Any]]:
    """All combinations of `points` values per numeric range and every option of each choice; the last varies first."""
    space = method.space()
    axes = [_points(span, points) for span in space.values()]
    return (dict(zip(space, values, strict=True)) for values in itertools.product(*axes))


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
