"""The folder of a sweep as a driver needs it: it can be written, and nobody else writes it."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from sweeps.storage.base import Folder
from sweeps.storage.folders import at
from sweeps.storage.leases import EXPIRY, Lease
from sweeps.storage.local_copy import LocalCopy
from sweeps.storage.signs import LOCK
from unlearn_core.checks import InputError


def prepare(replica: LocalCopy, out: Folder, store: Folder) -> None:
    """Create the sweep's folder, and see that it can be written, and the artifact store at least read.

    Raises:
        InputError: if one of them cannot be used.
    """
    problem = at(replica.home).unwritable()
    if problem:
        raise InputError(f"--out {out} cannot be written: {problem}; choose another folder")
    problem = at(store).unwritable()
    if problem and not store.exists():
        raise InputError(f"--store {store} cannot be written: {problem}; choose another folder")
    if problem:
        print(f"warning: {store} can only be read: what it lacks is made again in every run", file=sys.stderr)
    if replica.is_apart:
        print(f"{replica.home}: report, MLflow and a copy of the records are in {replica.dir}", file=sys.stderr)


@contextlib.contextmanager
def only_driver(home: Folder) -> Iterator[None]:
    """Two drivers on one sweep would do everything twice: the second is refused with InputError."""
    lease = Lease(home / LOCK)
    holder = lease.take()
    if holder is not None:
        raise InputError(
            f"another process is running this sweep in {home}: {holder}; wait for it or use --name. Without a sign of "
            f"life from its machine its lock is free after {EXPIRY:g} s; to free it now, delete {lease.path}"
        )
    try:
        yield
    finally:
        lease.release()
