"""Waiting for another process of this machine: it says so, and it ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from sweeps.storage.errors import StorageError

QUIET, LONGEST = 5.0, 300.0  # seconds of waiting without a word, and until it is given up
BUSY = (errno.EWOULDBLOCK, errno.EACCES)


@contextlib.contextmanager
def locked(folder: Path, purpose: str) -> Iterator[None]:
    """Hold the lock of a folder, which ends with its process; where folders cannot be locked (NFS) nobody waits.

    Args:
        folder: Must exist.
        purpose: Of the lock, shown to those who wait.

    Raises:
        StorageError: after LONGEST seconds.
    """
    number = os.open(folder, os.O_RDONLY)
    try:
        _lock(number, f"{folder} is in use by another process that {purpose}")
        yield
    finally:
        os.close(number)


def _lock(number: int, busy: str) -> None:
    began, said = time.monotonic(), False
    while True:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as problem:
            if problem.errno not in BUSY:
                return
        waited = time.monotonic() - began
        if waited > LONGEST:
            raise StorageError(f"{busy}; it was waited for {LONGEST:g} s: end it, and run the same command again")
        if waited > QUIET and not said:
            print(f"{busy}; waiting for it, at most {LONGEST:g} s", file=sys.stderr, flush=True)
            said = True
        time.sleep(0.1)
