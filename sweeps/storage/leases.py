"""Leases: which process does something that should be done once, on one machine or on many.

A lease is a small file that names its holder and that only one process can create. A holder shows that it lives by
touching the file; whoever is on the same machine asks for the process instead. A lease is a courtesy: losing one costs
work that is done twice, never a result, since records and artifacts are safe with any number of writers.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sweeps.storage.files import Folder, Remote, asked, remove, s3, writing
from sweeps.storage.holders import TAKEN, UNKNOWN, Holder, lives, parsed, this_machine, this_process

BEAT, EXPIRY = 10.0, 60.0  # seconds between signs of life, and without one until a lease is free for others
PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between looks at the lease of another; the last one repeats
QUIET, AGAIN = 5.0, 600.0  # seconds of waiting without a word, and between two words
LONGEST = 24 * 3600.0  # seconds that anything is waited for; then it is made twice
CANNOT = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTSUP, errno.ENOSYS)  # a place that takes no leases

T = TypeVar("T")


class Seen(NamedTuple):
    """A lease as it was found. dated: its last sign of life, in seconds by the clock of its storage. tag: the version
    of the object, in an object store, which also says what time it is there."""

    data: bytes
    dated: float
    tag: str = ""
    now: float | None = None

    @property
    def holder(self) -> Holder:
        return parsed(self.data) or UNKNOWN


class Lease:
    """One lease at `path`, whose folder must exist; in an object store it need not."""

    def __init__(self, path: Folder) -> None:
        self.path = path
        self.holder = this_process()
        self.others: Seen | None = None  # what `take` found last
        self._data = json.dumps(self.holder._asdict()).encode()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self) -> Holder | None:
        """None if the lease is this process's from now on, else who has it. Raises StorageError."""
        for _ in range(5):  # others may come and go in between
            with writing(self.path):
                if _create(self.path, self._data):
                    self._begin()
                    return None
            seen = _look(self.path)
            if seen is None:
                continue
            self.others = seen
            if not _is_free(self.path, seen) or _given_time(self.path, seen):
                return seen.holder
            with writing(self.path):
                _clear(self.path, seen)
        return UNKNOWN

    def release(self) -> None:
        """Free the lease, if it is this process's."""
        self._stop.set()
        TAKEN.discard(self.holder.token)
        if self._thread is not None:
            self._thread.join()
        with contextlib.suppress(OSError):  # the next one finds it expired
            seen = _look(self.path)
            if seen is not None and seen.data == self._data:
                remove(self.path)

    def _begin(self) -> None:
        TAKEN.add(self.holder.token)
        self._stop.clear()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT):
            with contextlib.suppress(OSError):  # storage that is away for a moment; the next beat tries again
                if not _touch(self.path, self._data):
                    return


def _is_free(path: Folder, seen: Seen) -> bool:
    holder = parsed(seen.data)
    if holder is not None and holder.machine == this_machine():
        return not lives(holder)
    return not -BEAT <= _age(path, seen) <= EXPIRY  # a date ahead is that of another clock


def _given_time(path: Folder, seen: Seen) -> bool:
    """Whether a lease that is dated ahead was dated now instead. It may be that of a machine whose clock was right
    before this one was set back: one that lives will touch it, and any other expires from now on."""
    holder = parsed(seen.data)
    if (holder is not None and holder.machine == this_machine()) or _age(path, seen) >= -BEAT:
        return False
    try:
        _touch(path, seen.data)
    except OSError:  # as another user's; then nobody's date ahead counts
        return False
    return True


def holder_of(path: Folder) -> Holder | None:
    """Who has the lease at `path` now and shows signs of life."""
    seen = _look(path)
    return None if seen is None or _is_free(path, seen) else parsed(seen.data)


@contextlib.contextmanager
def held(path: Folder, done: Callable[[], T | None]) -> Iterator[T | None]:
    """For the one process that shall make something: waits until it is there or this is that process.

    Yields what `done` returns as soon as that is not None, else None while the lease is held. Where no lease can be
    taken, as on a folder that cannot be written, it yields None at once: then several may make the same.
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
        """Whether what the holder makes is made here as well. Says now and then what is waited for."""
        now, others = time.monotonic(), self.lease.others
        if others and (self.known is None or others[:3] != self.known[:3]):
            self.known, self.changed = others, now
        over = now - self.changed > EXPIRY + BEAT or now - self.began > LONGEST
        if over or now >= self.speaks:
            self.speaks = now + AGAIN
            then = "it is not waited for any longer" if over else "its result is waited for"
            who = others.holder if others else UNKNOWN
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


def _create(path: Folder, data: bytes) -> bool:
    """Whether the file was made now, by this process; O_EXCL is honoured on NFS as well."""
    try:
        if isinstance(path, Remote):
            with _conditional():
                s3().pipe_file(path.url, data, mode="create")
            return True
        number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with open(number, "wb") as file:
        file.write(data)
    return True


@contextlib.contextmanager
def _conditional() -> Iterator[None]:
    """A write whose condition failed, because another process was faster, is a FileExistsError."""
    try:
        yield
    except OSError as problem:
        answer: Any = getattr(problem.__cause__, "response", None) or {}
        if answer.get("Error", {}).get("Code") in ("PreconditionFailed", "ConditionalRequestConflict"):
            raise FileExistsError(str(problem)) from problem
        raise


def _look(path: Folder) -> Seen | None:
    try:
        if isinstance(path, Path):
            with open(path, "rb") as file:  # opening makes NFS ask its server
                return Seen(file.read(), os.fstat(file.fileno()).st_mtime)
        with asked(path):
            data, answer = s3().cat_file(path.url), _head(path)
    except FileNotFoundError:
        return None
    now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    return Seen(data, answer["LastModified"].timestamp(), answer["ETag"], now.timestamp())


def _head(path: Remote) -> dict[str, Any]:
    bucket, _, key = path.url.removeprefix("s3://").partition("/")
    return dict(s3().call_s3("head_object", Bucket=bucket, Key=key))


def _age(path: Folder, seen: Seen) -> float:
    """Seconds since a lease's last sign of life, by the clock of its storage alone: no two machines need agree."""
    now = _now(path) if isinstance(path, Path) else seen.now
    return (seen.dated if now is None else now) - seen.dated


def _now(path: Path) -> float:
    """The time by the clock that dates files beside `path`."""
    probe = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        probe.touch()
        os.utime(probe)
        return probe.stat().st_mtime
    except OSError as problem:
        if problem.errno not in CANNOT:
            raise
        return time.time()  # for who only looks
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def _clear(path: Folder, seen: Seen) -> None:
    """Take away a lease that is free, unless it has changed since it was looked at."""
    if isinstance(path, Remote):
        with contextlib.suppress(FileExistsError, FileNotFoundError), _conditional():
            s3().pipe_file(path.url, b"", IfMatch=seen.tag)  # of several, one gets this far
            remove(path)
        return
    guard = path.with_name(f"{path.name}.clearing")  # whoever makes this is alone in taking the lease away
    if not _create(guard, b""):
        there = _look(guard)
        if there is not None and not -BEAT <= _age(guard, there) <= EXPIRY:  # its maker died over it
            guard.unlink(missing_ok=True)
        return
    try:
        if _look(path) == seen:
            path.unlink(missing_ok=True)
    finally:
        guard.unlink(missing_ok=True)


def _touch(path: Folder, data: bytes) -> bool:
    """Whether the lease is still the holder's, to whom it now looks alive."""
    seen = _look(path)
    if seen is None or seen.data != data:
        return False
    if isinstance(path, Remote):
        try:
            with asked(path), _conditional():
                s3().pipe_file(path.url, data, IfMatch=seen.tag)
        except FileExistsError:
            return False
    else:
        os.utime(path)
    return True
