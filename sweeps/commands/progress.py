"""Progress on the terminal: a live line with a bar where there is one, a calm line now and then where there is not."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

LIVE_SECONDS, CALM_SECONDS = 0.5, 15.0  # between two looks
SHARE = 20.0  # least pause, in multiples of how long the last look was: thousands of files take a while to look at


class ProgressDisplay:
    """Watches the number of recorded trials while work goes on elsewhere. Use as a context manager.

    count: returns how many trials are recorded so far, and how many of them failed. total: how many there will be,
    about.
    """

    def __init__(self, stage: str, total: int, count: Callable[[], tuple[int, int]]) -> None:
        self.stage, self.total, self.count = stage, max(1, total), count
        self.console = Console(file=sys.stderr)
        self.base = count()
        self.start = time.monotonic()
        self.first: tuple[float, int] | None = None  # when the first trials came, and how many
        self._look = 0.0  # seconds of the last one
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> ProgressDisplay:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def done(self) -> tuple[int, int]:
        """Trials recorded since this display began, and failures among them."""
        began = time.monotonic()
        trials, failed = self.count()
        self._look = time.monotonic() - began
        return trials - self.base[0], failed - self.base[1]

    def _watch(self) -> None:
        if self.console.is_terminal:
            self._live()
        else:
            self._calm()

    def _live(self) -> None:
        note = TextColumn("{task.fields[note]}")
        columns = (TextColumn("{task.description}"), BarColumn(), note, TimeElapsedColumn())
        with Progress(*columns, console=self.console) as bar:
            task = bar.add_task(self.stage, total=self.total, note="")
            while not self._stop.wait(max(LIVE_SECONDS, SHARE * self._look)):
                done = self.done()
                bar.update(task, completed=min(done[0], self.total), note=self.note(*done))
            bar.update(task, completed=self.total, note=self.summary())

    def _calm(self) -> None:
        self.console.print(f"{self.stage}: about {self.total} trials to do")
        while not self._stop.wait(max(CALM_SECONDS, SHARE * self._look)):
            self.console.print(f"{self.stage}: {self.note(*self.done())}")
        self.console.print(f"{self.stage}: {self.summary()} in {time.monotonic() - self.start:.0f} s")

    def summary(self) -> str:
        done, failed = self.done()
        return f"{done} trials done" + (f", {failed} failed" if failed else "")

    def note(self, done: int, failed: int) -> str:
        """Done, failed, left, and time left at the speed since the first trials came (before that, workers start)."""
        left = max(0, self.total - done)
        text = f"{done} done, {failed} failed, about {left} left"
        if not done:
            return text
        now = time.monotonic()
        self.first = self.first or (now, done)
        since, already = self.first
        speed = (done - already) / (now - since) if done > already else done / (now - self.start)
        return f"{text}, {duration(left / speed)} to go"


def duration(seconds: float) -> str:
    """A length of time in words, such as `4 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
