"""What is said when a sweep ends early."""

from __future__ import annotations

KEPT = "finished trials are kept: run the same command again to go on"


class ExecutorLostError(RuntimeError):
    """What runs the tasks is gone; what they recorded is kept."""
