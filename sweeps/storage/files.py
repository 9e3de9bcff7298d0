"""Where sweeps keep their files: a folder, or a place in an object store, behind a few functions.

A `Path` is a folder of this machine or one that it mounts (NFS): lines are appended and fsynced, whole files renamed
into place. A `Remote` is a place in S3 or in anything that speaks its API: an object appears whole or not at all, and
nothing is ever appended.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from unlearn_core.checks import InputError

ROOM = 2**20  # bytes that must be free before work begins whose result could not be kept otherwise
REMOTE = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w=+-][\w.=+-]*)*", re.ASCII)
LOCAL_COPIES = Path("results") / "s3"
FIXES = {
    errno.ENOSPC: "free some space there",
    errno.EDQUOT: "free some of your quota there",
    errno.EROFS: "mount it writable",
    errno.EACCES: "give yourself the right to write there",
    errno.EPERM: "give yourself the right to write there",
    errno.EIO: "check the disk",
    errno.ENOTDIR: "move the file away that stands in place of a folder",
    errno.EISDIR: "move the folder away that stands in place of a file",
    errno.EEXIST: "move away what stands in its place",
    errno.ENOTEMPTY: "move away what stands in its place",
}
S3_PATIENCE = {"connect_timeout": 5, "read_timeout": 60}  # seconds


class StorageError(OSError):
    """A place cannot be written or read now. The message names it and the fix; what was recorded before is safe."""

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.errno = number


@dataclass(frozen=True)
class Remote:
    """A place in an object store, such as `s3://bucket/prefix`, with those methods of `Path` that its readers need.

    Holds no credentials: every process finds its own in the environment, a profile or the role of its machine.
    """

    url: str

    def __truediv__(self, name: str) -> Remote:
        return Remote(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    def exists(self) -> bool:
        with asked(self):
            return bool(s3().exists(self.url))

    def read_bytes(self) -> bytes:
        """Raises FileNotFoundError."""
        with asked(self):
            return bytes(s3().cat_file(self.url))

    def read_text(self) -> str:
        return self.read_bytes().decode()


Folder: TypeAlias = Path | Remote


def place(text: str) -> Folder:
    """The folder or URL that `text` names; `resolved` checks it."""
    return Remote(text.rstrip("/")) if "://" in text else Path(text)


def resolved(folder: Folder, option: str) -> Folder:
    """The absolute folder, or the URL if it can be one. option: what the user calls it. Raises InputError."""
    if isinstance(folder, Path):
        return folder.resolve()
    if not REMOTE.fullmatch(folder.url):  # is not repeated: what does not belong there may be a password
        raise InputError(
            f"{option} must be a folder or s3://BUCKET/PREFIX made of letters, digits and _.=+-; "
            "keys and passwords belong in the environment or in ~/.aws"
        )
    return folder


def local_copy(folder: Folder) -> Path:
    """The folder itself; for a place in an object store the folder of this machine that shows the same."""
    return folder if isinstance(folder, Path) else LOCAL_COPIES.resolve() / folder.url.partition("://")[2]


def child(folder: Folder, name: str) -> Folder:
    """`folder / name` where the name may come from a configuration. Raises ValueError if that would lead elsewhere."""
    if not name or name in (".", "..") or set(name) & set("/\\\0"):
        raise ValueError(f"{name!r} is no name for a folder")
    return folder / name


def s3() -> Any:
    """The object store's filesystem, one per process. Listings are never reused: other machines write too."""
    import fsspec

    try:
        return fsspec.filesystem("s3", use_listings_cache=False, config_kwargs=S3_PATIENCE)
    except ImportError:
        raise InputError("places in s3:// need the package s3fs: install this project with its extra `s3`") from None


@contextlib.contextmanager
def asked(where: Folder) -> Iterator[None]:
    """Turns what an object store answers into StorageError; what is missing or there already stays what it is."""
    try:
        yield
    except (FileNotFoundError, FileExistsError, StorageError, InputError):
        raise
    except Exception as problem:  # those of the client libraries have no common base
        if isinstance(where, Path):
            raise
        reason = str(problem).strip().partition("\n")[0] or type(problem).__name__
        number = errno.EACCES if isinstance(problem, PermissionError) else getattr(problem, "errno", None)
        why = f"{where} cannot be used now: {reason}; check bucket, credentials and network"
        raise StorageError(why, number) from problem


@contextlib.contextmanager
def writing(where: Folder) -> Iterator[None]:
    """Turns the errors of a disk that is full or cannot be written into StorageError with the fix in it."""
    try:
        with asked(where):
            yield
    except StorageError:
        raise
    except OSError as problem:
        if isinstance(where, Remote):  # a bucket that does not exist
            raise StorageError(f"{where} cannot be written: {problem}", problem.errno) from problem
        if problem.errno not in FIXES:
            raise
        what = problem.filename or where
        raise StorageError(
            f"{what} cannot be written: {problem.strerror}; {FIXES[problem.errno]} and run the same command again: "
            "finished trials are kept",
            problem.errno,
        ) from problem


def unwritable(folder: Folder) -> str | None:
    """None if files can be made in `folder`, which is created; otherwise why not."""
    try:
        if isinstance(folder, Remote):
            put(folder / ".probe", b"")
            remove(folder / ".probe")
        else:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
    except OSError as problem:
        return problem.strerror or str(problem)
    return None


def check_room(folder: Folder) -> None:
    """Raises StorageError if hardly anything more fits: better before hours of work than after them."""
    if isinstance(folder, Path) and shutil.disk_usage(folder).free < ROOM:
        with writing(folder):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))


def append(file: Folder, data: bytes) -> None:
    """Add `data` to a file, which is on disk when this returns; in an object store the file must not exist yet."""
    with writing(file):
        if isinstance(file, Remote):
            s3().pipe_file(file.url, data)
            return
        with open(file, "ab") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())


def put(file: Folder, data: bytes) -> None:
    """Write a whole file in one step: readers see the one before or this one."""
    with writing(file):
        if isinstance(file, Remote):
            s3().pipe_file(file.url, data)
            return
        temporary = file.with_name(f".{file.name}-{uuid.uuid4().hex[:8]}")
        try:
            with open(temporary, "wb") as opened:
                opened.write(data)
                opened.flush()
                os.fsync(opened.fileno())
            os.replace(temporary, file)
        finally:
            temporary.unlink(missing_ok=True)


def remove(file: Folder) -> None:
    """Delete a file, if it is there."""
    with asked(file), contextlib.suppress(FileNotFoundError):
        if isinstance(file, Path):
            file.unlink()
        else:
            s3().rm_file(file.url)


def listing(folder: Folder, *, levels: int = 1) -> list[tuple[str, int]]:
    """Names, relative to `folder` and in order, and sizes of the files with records so many levels below it."""
    if isinstance(folder, Path):
        found = folder.glob("*.jsonl" if levels == 1 else "*/*.jsonl")
        return sorted((path.relative_to(folder).as_posix(), path.stat().st_size) for path in found)
    with asked(folder):
        objects = s3().find(folder.url, detail=True)  # flat: a thousand names per request
    start = len(folder.url.partition("://")[2]) + 1
    names = ((key[start:], int(info["size"])) for key, info in objects.items())
    return sorted((name, size) for name, size in names if name.endswith(".jsonl") and name.count("/") == levels - 1)


def contents(folder: Folder, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Each of the files in `folder` that is still there, and what it holds."""
    if isinstance(folder, Path):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                yield name, (folder / name).read_bytes()
        return
    with asked(folder):
        found = s3().cat([f"{folder.url}/{name}" for name in names], on_error="return") if names else {}
    start = len(folder.url.partition("://")[2]) + 1
    for key, data in found.items():
        with asked(folder), contextlib.suppress(FileNotFoundError):
            if isinstance(data, BaseException):
                raise data
            yield key[start:], data
