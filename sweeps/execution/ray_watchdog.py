"""Seeing that Ray itself is gone.

Ray and Tune would go on asking for what nobody can give any more, some of it in C++, where no exception ends it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

PERIOD = 1.0  # seconds between looks
SILENCE = 40.0  # seconds that a cluster may not answer; after 60 Ray's own code ends this process
GRACE = 15.0  # seconds for the command to end by itself once Ray is gone
PROGRAMS = ("raylet", "gcs_server")  # a local Ray has one of each, children of the process that started it


class Watchdog:
    """Looks at Ray from separate threads, as the one that uses it may be waiting for an answer. `lost`: Ray is gone.

    alive: whether Ray is there; an error is no answer, and after SILENCE without one Ray is lost. last_words: what is
    said if the process has to be ended in the middle of whatever it waits for. dismiss: keeps others from saying more.
    """

    def __init__(self, alive: Callable[[], bool], last_words: str, dismiss: Callable[[], None]) -> None:
        self.alive, self.last_words, self.dismiss = alive, last_words, dismiss
        self.lost = False
        self._silent = 0  # periods; time would also pass while this process is stopped
        self._over = threading.Event()

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        for look in (self._look, self._wait):
            threading.Thread(target=look, daemon=True).start()
        try:
            yield
        finally:
            self._over.set()

    def stop(self) -> None:
        """What follows is the intended end. Without effect once Ray is gone: its end may hang as well."""
        if not self.lost:
            self._over.set()

    def _look(self) -> None:
        while not self._over.wait(PERIOD):
            with contextlib.suppress(Exception):
                if not self.alive():
                    self.lost = True
                    return
                self._silent = 0

    def _wait(self) -> None:
        while not self.lost:
            if self._over.wait(PERIOD):
                return
            self._silent += 1
            self.lost = self.lost or self._silent * PERIOD > SILENCE
        if not self._over.wait(GRACE):
            self.dismiss()
            print(self.last_words, file=sys.stderr, flush=True)
            os._exit(1)


class LocalRay:
    """Whether the programs of a local Ray live, without asking them."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def lives(self) -> bool:
        """False once one of them has ended; True before they are started."""
        states = dict(_children(os.getpid()))
        self._seen.update(states)
        return all(states.get(name, "Z") not in "ZX" for name in self._seen)


def _children(parent: int) -> Iterator[tuple[str, str]]:
    """Ray's programs among the children of a process, and their states as the system calls them."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError):  # just gone
            head, _, tail = path.read_text().rpartition(")")
            name, (state, ppid) = head.partition("(")[2], tail.split()[:2]
            if name in PROGRAMS and int(ppid) == parent:
                yield name, state
