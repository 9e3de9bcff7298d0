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
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sweeps.files import Folder, Remote, asked, remove, s3, writing

BEAT, EXPIRY = 10.0, 60.0  # seconds between signs of life, and without one until a lease is free for others
PAUSES = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)  # seconds between looks at the lease of another; the last one repeats
CANNOT = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTSUP, errno.ENOSYS)  # a place that takes no leases

TAKEN: set[str] = set()  # tokens of the leases that this process has

T = TypeVar("T")


class Holder(NamedTuple):
    """The process that has a lease; `born` tells it from later ones of the same number, where the system says so."""

    host: str
    machine: str
    pid: int
    born: str
    since: str
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


UNKNOWN = Holder("a host not known yet", "", 0, "", "a moment ago", "")


class Seen(NamedTuple):
    """A lease as it was found; `tag` is the version of the object, in an object store."""

    data: bytes
    tag: str = ""


def this_process() -> Holder:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Holder(platform.node(), this_machine(), os.getpid(), _born(os.getpid()), now, uuid.uuid4().hex)


@lru_cache(maxsize=1)
def this_machine() -> str:
    """The same for two processes that can see each other, and for no others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return platform.node()


def _born(pid: int) -> str:
    """When a process started, in ticks since the machine did (no clock can be set wrong); "" where nothing tells."""
    try:
        state, *others = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else others[18]  # one that is dead and not yet buried by its parent
    except (OSError, ValueError, IndexError):
        return ""


def _lives(holder: Holder) -> bool:
    """Whether a process of this machine is still there, and has the lease."""
    if holder.pid == os.getpid():
        return holder.token in TAKEN
    if holder.born:
        return _born(holder.pid) == holder.born
    try:
        os.kill(holder.pid, 0)
    except OSError as problem:
        return problem.errno != errno.ESRCH
    return True


def _parse(data: bytes) -> Holder | None:
    try:
        return Holder(**json.loads(data))
    except (ValueError, TypeError):  # it is just being written, or its writer died over it
        return None


class Lease:
    """One lease at `path`, whose folder must exist; in an object store it need not."""

    def __init__(self, path: Folder) -> None:
        self.path = path
        self.holder = this_process()
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
            if seen is not None and not _is_free(self.path, seen):
                return _parse(seen.data) or UNKNOWN
            if seen is not None:
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
    holder = _parse(seen.data)
    if holder is not None and holder.machine == this_machine():
        return not _lives(holder)
    return _age(path) > EXPIRY


def holder_of(path: Folder) -> Holder | None:
    """Who has the lease at `path` now and shows signs of life."""
    seen = _look(path)
    return None if seen is None or _is_free(path, seen) else _parse(seen.data)


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


def _wait(lease: Lease, done: Callable[[], T | None]) -> tuple[T] | None:
    """What others made, or None once the lease is taken or cannot be."""
    looks = 0
    while True:
        try:
            if lease.take() is None:
                return None
        except OSError as problem:
            if problem.errno not in CANNOT:
                raise
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
            return Seen(path.read_bytes())
        with asked(path):
            return Seen(s3().cat_file(path.url), _head(path)["ETag"])
    except FileNotFoundError:
        return None


def _head(path: Remote) -> dict[str, Any]:
    bucket, _, key = path.url.removeprefix("s3://").partition("/")
    return dict(s3().call_s3("head_object", Bucket=bucket, Key=key))


def _age(path: Folder) -> float:
    """Seconds since a lease's last sign of life, by the clock of its storage alone: no two machines need agree."""
    try:
        if isinstance(path, Path):
            with open(path, "rb") as file:  # opening makes NFS ask its server
                return _now(path) - os.fstat(file.fileno()).st_mtime
        with asked(path):
            answer = _head(path)
    except FileNotFoundError:
        return 0.0
    now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    return float((now - answer["LastModified"]).total_seconds())


def _now(path: Path) -> float:
    """The time by the clock that dates files beside `path`."""
    probe = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
    try:
        probe.touch()
        os.utime(probe)
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _clear(path: Folder, seen: Seen) -> None:
    """Take away a lease that is free, unless it has changed since it was looked at."""
    if isinstance(path, Remote):
        with contextlib.suppress(FileExistsError, FileNotFoundError), _conditional():
            s3().pipe_file(path.url, b"", IfMatch=seen.tag)  # of several, one gets this far
            remove(path)
        return
    guard = path.with_name(f"{path.name}.clearing")  # whoever makes this is alone in taking the lease away
    if not _create(guard, b""):
        if _age(guard) > EXPIRY:  # its maker died over it
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
