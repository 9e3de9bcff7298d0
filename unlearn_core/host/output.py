"""Standard streams that cannot break a command: `| head`, `>&-` and terminals that do not know a character.

What a command is for goes on when nobody reads what it says, and its exit code is its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from io import TextIOWrapper
from typing import Any


class _Stream(TextIOWrapper):
    """Text to a place that may go away: what comes after that goes nowhere."""

    def write(self, text: str) -> int:
        return self._tried(super().write, text) or len(text)

    def flush(self) -> None:
        self._tried(super().flush)

    def _tried(self, action: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return action(*arguments)
        except OSError:  # nobody reads, or the disk is full
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())  # for processes that this one starts, too
            os.close(nowhere)
            return action(*arguments)


def run(main: Callable[[], int]) -> int:
    """The exit code of `main`, with streams that cannot break it. For the process of a command, not for libraries."""
    while (nowhere := os.open(os.devnull, os.O_RDWR)) <= 2:  # or the next file would become what others print to
        pass
    os.close(nowhere)
    _protect("stdout")
    _protect("stderr")
    return main()


def _protect(name: str) -> None:
    stream = getattr(sys, name)
    if stream is None:  # it was closed when the process began
        setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 - as long as the process
    elif isinstance(stream, TextIOWrapper):
        encoding, by_line = stream.encoding, stream.line_buffering
        setattr(sys, name, _Stream(stream.detach(), encoding=encoding, errors="replace", line_buffering=by_line))
