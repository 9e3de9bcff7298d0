"""Progress on the terminal: a live line with a bar where there is one, a calm line now and then where there is not."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

CALM_SECONDS = 15.0


class ProgressDisplay:
    """Watches the number of recorded trials while work goes on elsewhere. Use as a context manager.

    count: returns the number of trials recorded so far. total: how many there will be, about.
    """

    def __init__(self, stage: str, total: int, count: Callable[[], int]) -> None:
        self.stage, self.total, self.count = stage, max(1, total), count
        self.console = Console(file=sys.stderr)
        self.base = count()
        self.start = time.monotonic()
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

    def done(self) -> int:
        return self.count() - self.base

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
            while not self._stop.wait(0.5):
                done = self.done()
                bar.update(task, completed=min(done, self.total), note=self.note(done))
            bar.update(task, completed=self.total, note=f"{self.done()} trials done")

    def _calm(self) -> None:
        self.console.print(f"{self.stage}: about {self.total} trials to do")
        while not self._stop.wait(CALM_SECONDS):
            self.console.print(f"{self.stage}: {self.note(self.done())}")
        self.console.print(f"{self.stage}: {self.done()} trials done in {time.monotonic() - self.start:.0f} s")

    def note(self, done: int) -> str:
        """Done, left, and time left at the speed so far."""
        left = max(0, self.total - done)
        if not done:
            return f"0 done, about {left} left"
        seconds = (time.monotonic() - self.start) / done * left
        return f"{done} done, about {left} left, {duration(seconds)} to go"


def duration(seconds: float) -> str:
    """A length of time in words, such as `4 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
