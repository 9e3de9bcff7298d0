"""What goes wrong with storage, said with its fix: a disk that is full, a right that is missing."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

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
CANNOT = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTSUP, errno.ENOSYS)  # a folder that takes no new files


class StorageError(OSError):
    """A file or folder cannot be written or read now. The message names it and the fix; what was recorded is safe."""

    def __init__(self, message: str, number: int | None = None) -> None:
        super().__init__(message)
        self.errno = number


@contextlib.contextmanager
def writing(where: Path) -> Iterator[None]:
    """Turns the errors of a disk that is full or cannot be written into StorageError with the fix in it."""
    try:
        yield
    except StorageError:
        raise
    except OSError as problem:
        if problem.errno not in FIXES:
            raise
        what = problem.filename or where
        raise StorageError(
            f"{what} cannot be written: {problem.strerror}; {FIXES[problem.errno]} and run the same command again: "
            "finished trials are kept",
            problem.errno,
        ) from problem
