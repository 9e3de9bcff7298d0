"""How Tune hears that Ray is gone: it would go on asking for machines that nobody can give any more."""

from __future__ import annotations

from typing import Any

from ray.tune import Callback

from sweeps.execution.ray_watchdog import Watchdog


class Watch(Callback):
    """Ends a fit once Ray is lost."""

    def __init__(self, dog: Watchdog) -> None:
        self.dog = dog

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self.dog.lost:
            raise ConnectionError("Ray is gone")  # any error here ends the fit

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a copy for restoring a fit, which is never done."""
        return {}
