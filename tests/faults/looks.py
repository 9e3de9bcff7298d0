"""What can be seen from outside of a sweep that runs: processes, leases, and the runs in its tracking store."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from sweeps.storage.leases import holder_of


def descendants(root: int) -> dict[int, str]:
    """The processes below `root`, by number, and the names of their programs."""
    parents, names = dict[int, int](), dict[int, str]()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):  # it ended meanwhile, or is no process
            pid = int(entry.name)
            parents[pid] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            program = (entry / "cmdline").read_bytes().partition(b"\0")[0].decode()
            names[pid] = program if program.startswith("ray::") else Path(program).name
    below = {root}
    while found := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= found
    return {pid: names.get(pid, "") for pid in below - {root}}


def running(root: int, module: str) -> list[int]:
    """The processes below `root` that run this module of ours."""
    found = []
    for pid in descendants(root):
        with contextlib.suppress(OSError):
            if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                found.append(pid)
    return found


def first_holder(leases: Iterable[Path]) -> int | None:
    """The process that has one of these leases; None if nobody has any."""
    return next((holder.pid for holder in map(holder_of, leases) if holder), None)


def runs_shown(base: Path) -> Counter[str]:
    """How many runs a tracking store in a SQLite file has for each thing that it mirrors."""
    if not base.exists():
        return Counter()
    query = "SELECT t.value FROM runs r JOIN tags t USING (run_uuid) WHERE t.key = 'sweep.key' AND r.lifecycle_stage = "
    try:
        with contextlib.closing(sqlite3.connect(f"file:{base}?mode=ro", uri=True)) as open_base:
            return Counter(key for (key,) in open_base.execute(query + "'active'"))
    except sqlite3.OperationalError:  # it is just being made
        return Counter()
