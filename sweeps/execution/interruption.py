"""Ctrl-C in two stages: the first press lets what runs finish and be recorded, the second one stops at once."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

STDERR = 2


@contextlib.contextmanager
def two_stages(stop: Callable[[], None], text: str) -> Iterator[None]:
    """While the body runs, SIGINT or SIGTERM stops in two stages.

    The first one prints `text` and calls `stop`, in a separate thread as it may wait for others. The second raises
    KeyboardInterrupt. Signals that the process was started to ignore stay ignored.
    """
    asked, ended = threading.Event(), threading.Event()

    def handle(number: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        os.write(STDERR, f"\n{text}\n".encode())  # past Python's own file, which may be in the middle of a line
        asked.set()

    def wait() -> None:
        asked.wait()
        if not ended.is_set():
            stop()

    threading.Thread(target=wait, daemon=True).start()
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in numbers} if in_main_thread() else {}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        ended.set()
        asked.set()


def run_or_explain(
    command: Sequence[str], failure: str, *, again: str | None = None, environment: Mapping[str, str] | None = None
) -> int:
    """Run a command that prints its own errors; one that was killed cannot, so this function does.

    Args:
        command: Program and arguments.
        failure: What has failed if it was killed.
        again: What to do about it, the same command by default.
        environment: Of the command; that of this process by default.

    Returns:
        The exit code.
    """
    code = subprocess.run(command, env=environment).returncode
    if code >= 0:
        return code
    reason = signal.strsignal(-code) or "unknown"
    print(
        f"error: {failure}, as its process was ended by signal {-code} ({reason}; out of memory?); the records are "
        f"kept, {again or f'make it again: {shlex.join(command)}'}",
        file=sys.stderr,
    )
    return 1


def in_main_thread() -> bool:
    """Only there Python lets signals be handled."""
    return threading.current_thread() is threading.main_thread()
