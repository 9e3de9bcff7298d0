"""Leases: which process does something that should be done once, on one machine or on many.

A lease is a small file that names its holder and that only one process can create. A holder shows that it lives by
touching the file; on the same machine one looks for the process instead. A lease is a courtesy: losing one costs work
that is done twice, never a result, since records and artifacts are safe with any number of writers.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from sweeps.storage.base import Folder, Seen, Storage
from sweeps.storage.errors import CANNOT
from sweeps.storage.folders import at
from sweeps.storage.holders import TAKEN, UNKNOWN, Holder, lives, parsed, this_machine, this_process

BEAT, EXPIRY = 10.0, 60.0  # seconds between signs of life, and without one until a lease is free for others
PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between looks at the lease of another; the last one repeats
QUIET, AGAIN = 5.0, 600.0  # seconds of waiting without a word, and between two words
LONGEST = 24 * 3600.0  # seconds that anything is waited for; then it is made twice

T = TypeVar("T")


class Lease:
    """One lease at `path`, whose folder must exist; in an object store it need not."""

    def __init__(self, path: Folder) -> None:
        self.path, self._file = path, at(path)
        self.holder = this_process()
        self.others: Seen | None = None  # what `take` found last
        self._data = json.dumps(self.holder._asdict()).encode()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> Holder | None:
        """Try to get the lease.

        Returns:
            None if it is this process's from now on, else who has it.

        Raises:
            StorageError: if no lease can be written there.
        """
        for _ in range(5):  # others may come and go in between
            if self._file.create(self._data):
                self._begin()
                return None
            seen = self._file.look()
            if seen is None:
                continue
            self.others = seen
            if not _is_free(self._file, seen) or _given_time(self._file, seen):
                return parsed(seen.data) or UNKNOWN
            self._file.clear(seen, _expired)
        return UNKNOWN

    def release(self) -> None:
        """Free the lease, if it is this process's."""
        self._stop.set()
        TAKEN.discard(self.holder.token)
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError):  # the next one finds it expired
            seen = self._file.look()
            if seen is not None and seen.data == self._data:
                self._file.remove()

    def _begin(self) -> None:
        TAKEN.add(self.holder.token)
        self._stop.clear()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            with contextlib.suppress(OSError):  # storage that is away for a moment; the next beat tries again
                if not self._file.touch(self._data):
                    return


def _is_free(file: Storage, seen: Seen) -> bool:
    holder = parsed(seen.data)
    if holder is not None and holder.machine == this_machine():
        return not lives(holder)
    return _expired(file.age(seen))


def _expired(age: float) -> bool:
    return not -BEAT <= age <= EXPIRY  # a date ahead is that of another clock


def _given_time(file: Storage, seen: Seen) -> bool:
    """Whether a lease that is dated ahead was dated now instead.

    It may be that of a machine whose clock was right before this one was set back: one that lives will touch it, and
    any other expires from now on.
    """
    holder = parsed(seen.data)
    if (holder is not None and holder.machine == this_machine()) or file.age(seen) >= -BEAT:
        return False
    try:
        file.touch(seen.data)
    except OSError:  # as another user's; then nobody's date ahead counts
        return False
    return True


def holder_of(path: Folder) -> Holder | None:
    """Who has the lease at `path` now and shows signs of life."""
    file = at(path)
    seen = file.look()
    return None if seen is None or _is_free(file, seen) else parsed(seen.data)


@contextlib.contextmanager
def held(path: Folder, done: Callable[[], T | None]) -> Iterator[T | None]:
    """For the one process that shall make something: waits until it is there or this is that process.

    Where no lease can be taken, as in a folder that cannot be written, nobody waits: then several may make the same.

    Args:
        path: The lease.
        done: What was made; None if it is not there yet.

    Yields:
        What `done` returns as soon as that is not None, else None while the lease is held.
    """
    lease = Lease(path)
    mine = _wait(lease, done)
    try:
        yield done() if mine is None else mine[0]  # it may have been made just before the lease was free
    finally:
        lease.release()


class _Patience:
    """With the holder of a lease: as long as the lease changes, by the clock of this process that nobody can set."""

    def __init__(self, lease: Lease) -> None:
        self.lease, self.known = lease, lease.others
        self.began = self.changed = time.monotonic()
        self.speaks = self.began + QUIET

    def ends(self) -> bool:
        """Whether to stop waiting and make it here as well. Says now and then on stderr who is waited for."""
        now, others = time.monotonic(), self.lease.others
        if others and (self.known is None or others[:3] != self.known[:3]):
            self.known, self.changed = others, now
        over = now - self.changed > EXPIRY + BEAT or now - self.began > LONGEST
        if over or now >= self.speaks:
            self.speaks = now + AGAIN
            then = "it is not waited for any longer" if over else "its result is waited for"
            who = (parsed(others.data) if others else None) or UNKNOWN
            print(f"{who}, has the lease {self.lease.path}: {then}", file=sys.stderr, flush=True)
        return over


def _wait(lease: Lease, done: Callable[[], T | None]) -> tuple[T] | None:
    """What others made, or None once the lease is taken or cannot be, or its holder gave no sign of life."""
    looks, patience = 0, _Patience(lease)
    while True:
        try:
            if lease.take() is None:
                return None
        except OSError as problem:
            if problem.errno not in CANNOT:
                raise
            return None
        if patience.ends():
            return None
        time.sleep(PAUSES[min(looks, len(PAUSES) - 1)])
        looks += 1
        made = done()
        if made is not None:
            return (made,)
