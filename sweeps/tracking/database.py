"""MLflow's database in a file: made beside its place and moved there whole.

MLflow makes it in some fifty steps. Cut short in one of them, by a full disk or a signal, it would be neither empty nor
usable, for every sweep of its folder. Such a one is set aside; one with experiments in it never is.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from sweeps.storage.locking import locked
from sweeps.tracking.uri import sqlite_path

BESIDE = ("-wal", "-shm", "-journal")  # what SQLite keeps beside a file while it is written
SETTLED = 5.0  # seconds without a change after which nobody is making a database any more


class DatabaseError(RuntimeError):
    """A database file that cannot be used, for the reason given in one line."""


class Tables(Protocol):
    """What MLflow does to database files."""

    def newest(self) -> str:
        """The revision that this MLflow needs."""
        ...

    def make(self, path: Path) -> None:
        """Make all tables of that revision in an empty file."""
        ...

    def upgrade(self, path: Path) -> None:
        """Bring older tables to that revision."""
        ...


class Content(NamedTuple):
    """tables: whether there are any.

    revision: of the last step that was finished. used: whether there is an experiment, which MLflow makes once all
    tables are there.
    """

    tables: bool
    revision: str | None
    used: bool


@contextlib.contextmanager
def prepared(tracking_uri: str, tables: Tables) -> Iterator[None]:
    """A whole database, and one process at a time that makes one; servers make theirs before they answer."""
    path = sqlite_path(tracking_uri)
    if path is None:
        yield
        return
    with locked(path.parent, "prepares MLflow's database"):
        _prepare(path, tables)
        yield


def _prepare(path: Path, tables: Tables) -> None:
    found, newest = content(path), tables.newest()
    if found.revision == newest:
        return
    if found.used:
        _upgrade(path, tables, found.revision)
        return
    if found.tables or _beside(path):
        _wait_until_settled(path)
        found = content(path)
        if found.revision == newest or found.used:  # another program was making it, and has made it
            return
        kept = _set_aside(path)
        _say(f"{path} was never made to its end; it is kept as {kept.name} and made again")
    with _new(path) as new:
        tables.make(new)
        _switch_to_wal(new)
        _put(new, path)


def content(path: Path) -> Content:
    """What is in a database file. Raises DatabaseError if it is none."""
    if not path.exists():
        return Content(False, None, False)
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=10)) as database:
            names = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            versions = (
                list(database.execute("SELECT version_num FROM alembic_version")) if "alembic_version" in names else []
            )
            used = "experiments" in names and any(database.execute("SELECT 1 FROM experiments LIMIT 1"))
    except sqlite3.Error as problem:
        raise DatabaseError(f"{path} cannot be read as a database ({problem}); move it away or name another") from None
    return Content(bool(names), versions[0][0] if len(versions) == 1 else None, used)


def _upgrade(path: Path, tables: Tables, revision: str | None) -> None:
    """By way of a copy, as a step that is cut short cannot be taken back. The file before is kept."""
    if _beside(path):
        raise DatabaseError(f"{path} is of another version of MLflow and open in another program; end that first")
    kept = _free_name(path, f"before-{revision}")
    with _new(path) as new:
        with contextlib.closing(sqlite3.connect(path)) as old, contextlib.closing(sqlite3.connect(new)) as copy:
            old.backup(copy)
        try:
            tables.upgrade(new)
        except Exception as problem:  # of whatever kind MLflow and its libraries raise
            reason = str(problem).strip().partition("\n")[0]
            raise DatabaseError(
                f"{path} is of another version of MLflow and cannot be brought to this one ({reason}); it is as it "
                "was: use that version, or move the file away, and a new one is made"
            ) from problem
        _switch_to_wal(new)
        os.link(path, kept)
        os.replace(new, path)
    _say(f"{path} was of another version of MLflow; it is kept as {kept.name}, and a copy was brought to this one")


@contextlib.contextmanager
def _new(path: Path) -> Iterator[Path]:
    """A name for a file that is made beside `path`; what is left of it in the end goes, as do those before it."""
    for left in path.parent.glob(f".{path.name}.new-*"):  # its maker was killed: the lock is ours
        left.unlink(missing_ok=True)
    new = path.with_name(f".{path.name}.new-{uuid.uuid4().hex[:8]}")
    new.touch(0o666)  # SQLite would let the group write in no case
    try:
        yield new
    finally:
        for place in (new, *_beside(new)):
            place.unlink(missing_ok=True)


def _switch_to_wal(new: Path) -> None:
    """Write-ahead logging, which the file remembers, takes half the time per run.

    A file system that cannot do that keeps the journal it has. Raises OSError.
    """
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(new)) as database:
        database.execute("PRAGMA journal_mode=WAL")
    with open(new, "rb") as file:
        os.fsync(file.fileno())


def _put(new: Path, path: Path) -> None:
    """Where folders have no locks, of two that were made at once the first one stays."""
    if path.exists():
        os.replace(new, path)  # it is empty
        return
    try:
        os.link(new, path)
    except FileExistsError:
        return
    except OSError:  # no links here
        os.replace(new, path)


def _beside(path: Path) -> list[Path]:
    return [place for end in BESIDE if (place := path.with_name(path.name + end)).exists()]


def _wait_until_settled(path: Path) -> None:
    """Until nobody has written for a moment: it may just be made by a program that takes no lock of ours."""
    before, since = None, time.monotonic()
    while time.monotonic() - since < SETTLED:
        places = [place for place in (path, *_beside(path)) if place.exists()]
        now = [(place.name, place.stat().st_mtime_ns, place.stat().st_size) for place in places]
        if now != before:
            before, since = now, time.monotonic()
        time.sleep(0.2)


def _set_aside(path: Path) -> Path:
    """Under another name, with what SQLite keeps beside it, which comes first: it must not meet a new file."""
    kept = _free_name(path, "unfinished")
    for place in (*_beside(path), path):
        with contextlib.suppress(FileNotFoundError):
            os.replace(place, kept.with_name(kept.name + place.name.removeprefix(path.name)))
    return kept


def _free_name(path: Path, what: str) -> Path:
    names = (path.with_name(f"{path.name}.{what}{number or ''}") for number in range(1000))
    return next(name for name in names if not name.exists())


def _say(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
