"""What users of Ray Tune give: callbacks, and stoppers of studies. What these end, the next run goes on with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ray.tune import Callback, Stopper
from ray.tune.stopper import FunctionStopper, NoopStopper
from ray.tune.utils import flatten_dict

from sweeps.execution.stop_bounds import check_stop

Stop: TypeAlias = Stopper | Callable[[str, dict[str, Any]], bool] | Mapping[str, float] | None
"""What `tune.RunConfig(stop=...)` takes: a stopper, a function, or a mapping from a reported number to its bound."""


class StudyStopper(Stopper):
    """Asks a user's stopper, once per evaluated proposal.

    It is given the name of the study in place of the id of Tune's trial, so that what it remembers of a study holds
    for all parts of a split one. What Tune hears besides proposals is kept from it.

    Tune ends all running trials at once if `stop_all` says so, in the middle of training. This one never does: it
    calls `end`, which lets the trials that run finish.

    Args:
        asked: The user's stopper.
        end: Called when the user's stopper wants to end everything.
    """

    def __init__(self, asked: Stopper, end: Callable[[], None]) -> None:
        self._asked, self._end = asked, end
        self._ended = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        if "score" not in result or result["finished"]:
            return False
        return bool(self._asked(result["study"], result))

    def stop_all(self) -> bool:
        if not self._ended and self._asked.stop_all():
            self._ended = True
            self._end()
        return False

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a copy for restoring a fit, which is never done."""
        return {}


def is_callback(value: object) -> bool:
    """Whether Tune would call it."""
    return isinstance(value, Callback)


def as_stopper(stop: Stop) -> Stopper:
    """The stopper that a user means. Raises InputError for what Tune does not accept."""
    if stop is None:
        return NoopStopper()
    check_stop(stop)
    if isinstance(stop, Stopper):
        return stop
    if isinstance(stop, Mapping):
        bounds = stop
        return FunctionStopper(lambda trial_id, result: _reached(bounds, flatten_dict(result)))
    return FunctionStopper(stop)


def _reached(bounds: Mapping[str, float], result: Mapping[str, Any]) -> bool:
    return any(result[name] >= bound for name, bound in bounds.items() if name in result)
