"""MLflow's database file: cut short in the making, of another version, no database at all, or made by two at once."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from sweeps.storage import locking
from sweeps.tracking import database, mlflow_mirror, sync
from sweeps.tracking.database import content
from sweeps.tracking.mlflow_mirror import DatabaseTables
from tests.sweeps.mirrored import SMALL, Sweep
from tests.sweeps.tracking_store import start_sync

pytestmark = pytest.mark.slow

BUSY = """
import fcntl, os, sys, time
fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)
print("locked", flush=True)
time.sleep(600)
"""


class CutError(RuntimeError):
    """As if the process had been killed, or the disk were full."""


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    made = Sweep(tmp_path, "small", f"sqlite:///{tmp_path / 'mlflow.db'}")
    made.write(SMALL)
    return made


def run_migrations(path: Path, *, statements: int) -> None:
    """MLflow's own way to make its tables, in place, until so many statements were executed."""
    from mlflow.store.db import utils

    engine = utils.create_sqlalchemy_engine(f"sqlite:///{path}")
    count = [0]

    @sqlalchemy.event.listens_for(engine, "before_cursor_execute")
    def _stop(*arguments: Any) -> None:
        count[0] += 1
        if count[0] > statements:
            raise CutError

    with contextlib.suppress(CutError):
        utils._initialize_tables(engine)
    engine.dispose()


def mlflow_alone(path: Path) -> str | None:
    """What MLflow itself says to a database."""
    mlflow_mirror._quiet_mlflow()
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    try:
        SqlAlchemyStore(f"sqlite:///{path}", str(path.parent / "artifacts"))
    except Exception as problem:
        return str(problem)
    return None


@pytest.mark.parametrize("statements", [30, 120, 350])
def test_one_that_was_cut_short_is_kept_and_made_again(
    sweep: Sweep, tmp_path: Path, statements: int, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(database, "SETTLED", 0.5)
    base = tmp_path / "mlflow.db"
    DatabaseTables().newest()
    run_migrations(base, statements=statements)
    assert content(base).tables and not content(base).used
    shutil.copy(base, tmp_path / "copy.db")
    assert mlflow_alone(tmp_path / "copy.db") is not None  # it is broken for good
    assert sweep.sync().new == len(SMALL)
    said = capsys.readouterr().err
    assert f"warning: {base} was never made to its end; it is kept as mlflow.db.unfinished and made again" in said
    assert content(tmp_path / "mlflow.db.unfinished").tables
    assert sweep.sync().new == 0
    assert {path.name for path in tmp_path.glob("*mlflow*")} - {"mlflow.db-wal", "mlflow.db-shm"} == {
        "mlflow.db", "mlflow.db.unfinished"
    }  # fmt: skip


def test_making_one_that_is_cut_short_leaves_nothing_behind(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:

        def full(self: Any, path: Path) -> None:
            run_migrations(path, statements=100)
            raise OSError(28, "No space left on device")

        patch.setattr(DatabaseTables, "make", full)
        with pytest.raises(sync.TrackingError, match="No space left on device"):
            sweep.sync()
    assert not list(tmp_path.glob("*mlflow.db*"))
    (tmp_path / ".mlflow.db.new-01234567").write_text("left by a process that was killed")
    assert sweep.sync().new == len(SMALL)
    assert not list(tmp_path.glob(".mlflow.db.new*"))


def test_a_new_one_is_private_if_the_command_is_and_writes_ahead(sweep: Sweep, tmp_path: Path) -> None:
    sweep.sync()
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as base:
        assert base.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_an_empty_file_is_no_hindrance(sweep: Sweep, tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as base:
        base.execute("PRAGMA journal_mode=WAL")
    assert sweep.sync().new == len(SMALL)
    assert not list(tmp_path.glob("mlflow.db.*"))


def downgraded(path: Path) -> str:
    """Make a whole database one of the revision before; returns that."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db import utils

    script = ScriptDirectory.from_config(utils._get_alembic_config(""))
    before = str(script.get_revision("head").down_revision)
    with contextlib.closing(sqlite3.connect(path)) as base:
        base.execute("UPDATE alembic_version SET version_num = ?", (before,))
        base.commit()
        base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return before


def test_a_whole_one_of_a_former_version_is_kept_and_its_copy_brought_up_to_date(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def upgrade(self: Any, path: Path) -> None:  # the last step is undone in its number only
        with contextlib.closing(sqlite3.connect(path)) as base:
            base.execute("UPDATE alembic_version SET version_num = ?", (self.newest(),))
            base.commit()

    sweep.sync()
    tracking_engines_closed(tmp_path / "mlflow.db")
    before = downgraded(tmp_path / "mlflow.db")
    monkeypatch.setattr(DatabaseTables, "upgrade", upgrade)
    assert sweep.sync().new == 0  # all its runs are still there
    kept = tmp_path / f"mlflow.db.before-{before}"
    assert (content(kept).revision, content(kept).used) == (before, True)
    assert f"kept as {kept.name}, and a copy was brought to this one" in capsys.readouterr().err


def tracking_engines_closed(path: Path) -> None:
    """MLflow keeps connections of this process open."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for uri, engine in list(SqlAlchemyStore._engine_map.items()):
        if str(path) in uri:
            engine.dispose()


def test_an_upgrade_that_fails_changes_nothing(sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise CutError("cut short\nsecond line")

    sweep.sync()
    tracking_engines_closed(tmp_path / "mlflow.db")
    before = downgraded(tmp_path / "mlflow.db")
    monkeypatch.setattr(DatabaseTables, "upgrade", fail)
    with pytest.raises(sync.TrackingError, match=r"cannot be brought to this one \(cut short\); it is as it was"):
        sweep.sync()
    assert content(tmp_path / "mlflow.db").revision == before
    assert not list(tmp_path.glob("*mlflow.db?[bn]*"))


@pytest.mark.parametrize("data", [b"no database at all", b"SQLite format 3\0" + b"\0" * 200])
def test_what_is_no_database_is_told_and_left_alone(sweep: Sweep, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "mlflow.db").write_bytes(data)
    with pytest.raises(sync.TrackingError, match="cannot be read as a database .*; move it away or name another"):
        sweep.sync()
    assert (tmp_path / "mlflow.db").read_bytes() == data


def test_another_one_who_prepares_it_is_waited_for_not_in_silence_and_not_for_ever(
    sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    monkeypatch.setattr(locking, "QUIET", 0.2)
    monkeypatch.setattr(locking, "LONGEST", 1.0)
    with subprocess.Popen([sys.executable, "-c", BUSY, tmp_path], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        with pytest.raises(sync.TrackingError, match="prepares MLflow's database; it was waited for 1 s"):
            sweep.sync()
        other.kill()
    assert f"{tmp_path} is in use by another process" in capsys.readouterr().err
    assert sweep.sync().new == len(SMALL)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_at_once_and_kills_in_the_making_leave_one_whole_database(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    sweeps = [Sweep(tmp_path, name, uri) for name in ("one", "two")]
    for sweep in sweeps:
        sweep.write(SMALL)
    for moment in (0.0, 0.3, 1.0):  # after the new file appeared
        process = start_sync(sweeps[0].folder, uri)
        while process.poll() is None and not list(tmp_path.glob(".mlflow.db.new-*")):
            time.sleep(0.01)
        time.sleep(moment)
        if process.poll() is None and not (tmp_path / "mlflow.db").exists():
            os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=200)
    both = [start_sync(sweep.folder, uri) for sweep in sweeps]
    for process in both:
        said = "".join(process.communicate(timeout=300))
        assert process.returncode == 0, said
    assert not list(tmp_path.glob(".mlflow.db.new-*"))
    for sweep in sweeps:
        assert sweep.sync().new == 0
