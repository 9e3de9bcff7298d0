"""A sweep in an object store and its copy on this machine, which progress, analysis and MLflow read.

Workers write to the object store, which always counts. Objects with records never change, so only those that the copy
lacks are fetched. The report and the table are made here and uploaded.
"""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

from sweeps.storage.base import PART, Folder
from sweeps.storage.errors import writing
from sweeps.storage.folders import at

NAME = re.compile(r"[\w=+-][\w.=+-]*/[\w=+-][\w.=+-]*\.jsonl", re.ASCII)  # a bucket may hold any names
AT_ONCE = 500  # objects fetched side by side
PAUSE, SHARE = 5.0, 20.0  # between two looks: seconds, and multiples of the time of the last one


class LocalCopy:
    """The copy of a sweep. A sweep in a folder of this machine needs none: there nothing is copied.

    Attributes:
        home: the sweep, which workers write to.
        dir: its folder on this machine, for everything that reads it.
        is_apart: whether these are two.
    """

    def __init__(self, home: Folder) -> None:
        self.home, self.dir = home, at(home).local_copy
        self.is_apart = self.home != self.dir
        self._lock = threading.Lock()
        self._next = 0.0  # when it is time for another look

    def pull(self, *, patient: bool = False) -> None:
        """Make the copy equal to the sweep.

        Args:
            patient: Do nothing if that was done a moment ago.

        Raises:
            StorageError: if the sweep cannot be read or the copy not be written.
        """
        if not self.is_apart:
            return
        with self._lock:
            began = time.monotonic()
            if not patient or began >= self._next:
                self._pull()
                now = time.monotonic()
                self._next = now + max(PAUSE, SHARE * (now - began))

    def pull_folder(self, folder: str) -> None:
        """Fetch the new records in one folder of the sweep."""
        if self.is_apart:
            with self._lock, writing(self.dir):
                self._fetch(self.home / "records" / folder, self.dir / "records" / folder, levels=1)

    def _pull(self) -> None:
        try:
            manifest = (self.home / "sweep.json").read_bytes()
        except FileNotFoundError:
            manifest = b""
        with writing(self.dir):
            self.dir.mkdir(parents=True, exist_ok=True)
            if manifest:
                at(self.dir / "sweep.json").write(manifest)
            else:
                at(self.dir / "sweep.json").remove()
            self._pull_records()

    def _pull_records(self) -> None:
        there = self._fetch(self.home / "records", self.dir / "records", levels=2)
        for name in dict(at(self.dir / "records").files(PART, levels=2)).keys() - there:
            (self.dir / "records" / name).unlink()

    def _fetch(self, folder: Folder, copy: Path, *, levels: int) -> set[str]:
        """Get the records so many levels below a folder that the copy has not got; returns the names of all."""
        task = "" if levels == 2 else f"{copy.name}/"
        there = {name: size for name, size in at(folder).files(PART, levels=levels) if NAME.fullmatch(task + name)}
        here = dict(at(copy).files(PART, levels=levels))
        wanted = sorted(name for name, size in there.items() if here.get(name) != size)
        for start in range(0, len(wanted), AT_ONCE):
            for name, data in at(folder).contents(wanted[start : start + AT_ONCE]):
                path = copy / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)  # one that a crash cuts short has another size and is fetched again
        return set(there)

    def push(self, *names: str) -> None:
        """Upload files and folders that were made here; those that do not exist are left out."""
        if not self.is_apart:
            return
        for name in names:
            top = self.dir / name
            for path in sorted(path for path in (top, *top.rglob("*")) if path.is_file()):
                target = self.home
                for part in path.relative_to(self.dir).parts:
                    target = target / part
                at(target).write(path.read_bytes())
