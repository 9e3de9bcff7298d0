"""Which process holds a lease: not another one of the same machine, nor a later one with the same number."""

from __future__ import annotations

import errno
import json
import os
import platform
import uuid
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

TAKEN: set[str] = set()  # tokens of the leases that this process has


class Holder(NamedTuple):
    """The process that has a lease.

    Attributes:
        host: name of its machine, for people.
        machine: identifies this boot of its machine.
        pid: its number.
        born: when it started, so that it is not mistaken for a later one with the same number; "" if unknown.
        since: when it got the lease, in UTC.
        token: random, one per lease.
    """

    host: str
    machine: str
    pid: int
    born: str
    since: str
    token: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}, since {self.since}"


UNKNOWN = Holder("a host not known yet", "", 0, "", "a moment ago", "")


def this_process() -> Holder:
    """The process that calls, as a holder of leases."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Holder(platform.node(), this_machine(), os.getpid(), born_at(os.getpid()), now, uuid.uuid4().hex)


@lru_cache(maxsize=1)
def this_machine() -> str:
    """The same for two processes that can see each other, and for no others."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return platform.node()


def born_at(pid: int) -> str:
    """When a process started, in ticks since its machine did, which no clock can change; "" if that is unknown."""
    try:
        state, *others = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else others[18]  # one that is dead and not yet buried by its parent
    except (OSError, ValueError, IndexError):
        return ""


def lives(holder: Holder) -> bool:
    """Whether a process of this machine is still there, and has the lease."""
    if holder.pid == os.getpid():
        return holder.token in TAKEN
    if holder.born:
        return born_at(holder.pid) == holder.born
    try:
        os.kill(holder.pid, 0)
    except OSError as problem:
        return problem.errno != errno.ESRCH
    return True


def parsed(data: bytes) -> Holder | None:
    """The holder that a lease names; None if it is just being written, or its writer died over it."""
    try:
        holder = Holder(**json.loads(data))
    except (ValueError, TypeError, RecursionError):
        return None
    texts = (holder.host, holder.machine, holder.born, holder.since, holder.token)
    good = isinstance(holder.pid, int) and holder.pid > 0 and all(isinstance(text, str) for text in texts)
    return holder if good else None
