"""Seeing that Ray itself is gone. Tune would go on asking for machines that nobody can give any more."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ray.tune import Callback

PERIOD = 5.0  # seconds between looks


class Watch(Callback):
    """Ends a fit once `alive` says no, and remembers that it did."""

    def __init__(self, alive: Callable[[], bool]) -> None:
        self.alive, self.lost, self._next = alive, False, 0.0

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + PERIOD
        if not self.alive():
            self.lost = True
            raise ConnectionError("Ray is gone")  # any error here ends the fit

    def __getstate__(self) -> dict[str, Any]:
        """Tune keeps a copy for restoring a fit, which is never done."""
        return {}
