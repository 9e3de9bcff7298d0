"""A folder of this machine, or one that it mounts (NFS): lines are appended and fsynced, files renamed in place."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sweeps.schema.line_files import first_line
from sweeps.storage.base import PART, Seen, part_name
from sweeps.storage.errors import CANNOT, writing

ROOM = 2**20  # bytes that must be free before work begins whose result could not be kept otherwise
ABANDONED = 3600.0  # seconds without a sign of its writer, after which a half-written folder is nobody's


@dataclass(frozen=True)
class LocalStorage:
    """One file or folder; satisfies `base.Storage`."""

    path: Path

    def resolved(self, option: str) -> Path:
        return self.path.resolve()

    @property
    def local_copy(self) -> Path:
        return self.path

    # a file

    def write(self, data: bytes, *, durable: bool = True) -> None:
        with writing(self.path):
            if durable:
                self._replace(data)
            else:
                self.path.write_bytes(data)

    def _replace(self, data: bytes) -> None:
        temporary = self._beside()
        try:
            _write_through(temporary, data, "wb")
            os.replace(temporary, self.path)
        finally:
            temporary.unlink(missing_ok=True)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    # a folder

    def make_folder(self) -> None:
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    def unwritable(self) -> str | None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as problem:
            return problem.strerror or str(problem)
        return None

    def check_room(self) -> None:
        if shutil.disk_usage(self.path).free < ROOM:
            with writing(self.path):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def files(self, suffix: str = "", *, levels: int = 1) -> list[tuple[str, int]]:
        found = []
        for path in self.path.glob("*/" * (levels - 1) + f"*{suffix}"):
            with contextlib.suppress(FileNotFoundError):  # a lease that was released meanwhile
                info = path.stat()
                if stat.S_ISREG(info.st_mode):
                    found.append((path.relative_to(self.path).as_posix(), info.st_size))
        return sorted(found)

    def contents(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield name, (self.path / name).read_bytes()

    def lines(self) -> LocalLines:
        return LocalLines(self)

    # a folder that is written as a whole

    def has_folder(self, last: str) -> bool:
        return os.path.lexists(self.path)

    def file_name(self, name: str, checksum: str) -> str:
        return name

    def write_folder(self, files: Mapping[str, bytes]) -> None:
        with writing(self.path):
            self._clear_away()
            self.path.parent.mkdir(parents=True, exist_ok=True)
            temporary = self._beside()
            temporary.mkdir()
            try:
                for name, data in files.items():
                    _write_through(temporary / name, data, "wb")
                os.rename(temporary, self.path)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def _clear_away(self) -> None:
        """What killed writers of this folder left behind. One that still writes showed it lately."""
        for left in self.path.parent.glob(f".{self.path.name}-*"):
            with contextlib.suppress(OSError):
                if abs(time.time() - left.stat().st_mtime) > ABANDONED:  # a date ahead is no sign of life
                    shutil.rmtree(left)

    def discard_folder(self) -> None:
        with contextlib.suppress(OSError):
            if self.path.is_symlink() or not self.path.is_dir():
                self.path.unlink()
            else:
                shutil.rmtree(self.path)

    # a lease

    def create(self, data: bytes) -> bool:
        with writing(self.path), contextlib.suppress(FileExistsError):
            number = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)  # O_EXCL holds on NFS as well
            with open(number, "wb") as file:
                file.write(data)
            return True
        return False

    def look(self) -> Seen | None:
        try:
            with open(self.path, "rb") as file:  # opening makes NFS ask its server
                return Seen(file.read(), os.fstat(file.fileno()).st_mtime)
        except FileNotFoundError:
            return None

    def age(self, seen: Seen) -> float:
        return self._now() - seen.dated

    def _now(self) -> float:
        """The time by the clock that dates files beside this one."""
        probe = self._beside()
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

    def touch(self, data: bytes) -> bool:
        seen = self.look()
        if seen is None or seen.data != data:
            return False
        os.utime(self.path)
        return True

    def clear(self, seen: Seen, expired: Callable[[float], bool]) -> None:
        guard = LocalStorage(self.path.with_name(f"{self.path.name}.clearing"))  # its maker alone takes the lease away
        with writing(self.path):
            if not guard.create(b""):
                there = guard.look()
                if there is not None and expired(guard.age(there)):  # its maker died over it
                    guard.remove()
                return
            try:
                if self.look() == seen:
                    self.remove()
            finally:
                guard.remove()

    def _beside(self) -> Path:
        """A new name beside this one."""
        return self.path.with_name(f".{self.path.name}-{uuid.uuid4().hex[:8]}")


class LocalLines:
    """One file that grows; satisfies `base.Lines`."""

    def __init__(self, folder: LocalStorage) -> None:
        self._folder = folder
        self._file: Path | None = None

    def append(self, line: bytes) -> None:
        file, self._file = self._file or self._begin(), None  # after a torn line the next one begins another file
        with writing(file):
            _write_through(file, line, "ab")
        self._file = file

    def _begin(self) -> Path:
        self._folder.make_folder()
        names = [name for name, _ in self._folder.files(PART)]
        ends = (first_line(name) + len(list(io.BytesIO(data))) for name, data in self._folder.contents(names))
        return self._folder.path / part_name(max(ends, default=0))


def _write_through(path: Path, data: bytes, mode: str) -> None:
    """It is on disk when this returns."""
    with open(path, mode) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
