"""What a command leaves outside of its folder: processes, open ports, folders of Ray. In the end there is nothing."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

from sweeps.execution.ray_home import PREFIX
from sweeps.storage.holders import born_at
from tests.faults.looks import descendants


class Remains:
    """The processes of a command at one moment, and the sockets on which they take connections.

    mark: a variable of the environment that all processes of the sweep have, and no others. place: the temporary folder
    of the command alone.
    """

    def __init__(self, command: int, mark: str, place: Path) -> None:
        self.mark, self.place = mark, place
        pids = [command, *descendants(command)]
        self.born = {pid: born_at(pid) for pid in pids}
        self.sockets = set().union(*map(sockets_of, pids)) & listening()
        self.homes = list(place.glob(f"{PREFIX}*"))

    def left(self) -> list[str]:
        """What is still there."""
        processes = [f"process {pid}" for pid, born in self.born.items() if born and born_at(pid) == born]
        sockets = [f"socket {socket}" for socket in self.sockets & listening()]
        return [*left_by(self.mark, self.place), *processes, *sockets]


def left_by(mark: str, place: Path) -> list[str]:
    """Processes of a sweep and folders of its Ray."""
    return [*(f"process {pid}" for pid in processes_with(mark)), *map(str, place.glob(f"{PREFIX}*"))]


def wait_for_end_of(left: Callable[[], object], seconds: float) -> None:
    """Until nothing is left. Raises AssertionError with what is, if that takes longer."""
    end = time.monotonic() + seconds
    while found := left():
        assert time.monotonic() < end, found
        time.sleep(0.1)


def processes_with(mark: str) -> list[int]:
    """Those with this variable in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # of another user, or just gone
            if mark.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def listening() -> set[str]:
    """Sockets of this machine on which processes take connections."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return {line[9] for line in lines if line[3] == "0A"}


def sockets_of(pid: int) -> set[str]:
    found = set[str]()
    with contextlib.suppress(OSError):
        for number in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(os.readlink(number).removeprefix("socket:[").removesuffix("]"))
    return found
