"""Leases dated ahead, holders that stopped, and what is said while one waits; on disk and in an object store."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from sweeps.commands.driver import Driver
from sweeps.commands.run import main
from sweeps.storage import leases
from sweeps.storage.folders import at
from sweeps.storage.holders import this_process
from sweeps.storage.leases import Lease, held, holder_of
from sweeps.storage.local import LocalStorage
from sweeps.storage.record_log import read_trials
from sweeps.storage.s3 import S3Path, S3Storage
from tests.faults.feeding import Feed, feed
from tests.sweeps.conftest import Done
from tests.sweeps.left_lease import leave
from tests.sweeps.object_store import bucket, endpoint
from tests.sweeps.tiny import science, write_config

__all__ = ["bucket", "endpoint", "feed"]  # fixtures

FORK = multiprocessing.get_context("fork")
DAY = 86400.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lock"


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"BEAT": 0.1, "EXPIRY": 0.6, "QUIET": 0.3}.items():
        monkeypatch.setattr(leases, name, value)


@pytest.mark.slow
@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("ahead", [30.0, DAY, 4000 * DAY])
def test_a_lease_dated_ahead_is_free_after_its_time_and_not_never(path: Path, ahead: float) -> None:
    dead = leave(path, machine="another boot", host="node7", seconds_ago=-ahead)
    assert Lease(path).take() == dead
    end = time.monotonic() + 20
    while (found := Lease(path).take()) is not None:  # as the same command again and again
        assert found == dead
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.slow
def test_a_holder_that_lives_keeps_its_lease_when_the_clock_is_set_back(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "EXPIRY", 1.5)
    monkeypatch.setattr(leases, "BEAT", 0.2)
    holder, over = leave(path, machine="elsewhere", seconds_ago=-DAY), threading.Event()

    def beat() -> None:
        while not over.wait(0.2):
            os.utime(path)

    beats = threading.Thread(target=beat)
    beats.start()
    end = time.monotonic() + 4
    while time.monotonic() < end:
        assert Lease(path).take() == holder
        time.sleep(0.1)
    over.set()
    beats.join()


@pytest.mark.usefixtures("hurried")
def test_one_who_waits_for_a_lease_dated_ahead_gets_it_in_the_end(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leave(path, machine="another boot", host="node7", seconds_ago=-DAY)
    with held(path, lambda: None) as found:
        assert found is None
        assert json.loads(path.read_text())["pid"] == os.getpid()
    said = capsys.readouterr().err
    assert said.startswith(f"process {os.getpid()} on node7, since ")
    assert f"has the lease {path}: its result is waited for" in said


def test_a_date_ahead_that_cannot_be_changed_counts_for_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: LocalStorage, data: bytes) -> bool:
        raise PermissionError

    leave(path, machine="elsewhere", seconds_ago=-DAY)
    monkeypatch.setattr(LocalStorage, "touch", refuse)
    assert holder_of(path) is None
    assert Lease(path).take() is None


def _take_and_stop(path: Path) -> None:
    assert Lease(path).take() is None
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.usefixtures("hurried")
@pytest.mark.timeout(60)
def test_a_stopped_holder_on_this_machine_is_not_waited_for_for_ever(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = FORK.Process(target=_take_and_stop, args=(path,))
    process.start()
    assert process.pid is not None
    os.waitpid(process.pid, os.WUNTRACED)
    try:
        with held(path, lambda: None) as found:
            assert found is None
        assert holder_of(path) is not None  # it still is its lease
    finally:
        os.kill(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)
    said = capsys.readouterr().err.splitlines()
    assert said[-1].endswith(f"has the lease {path}: it is not waited for any longer")
    assert f"process {process.pid} on " in said[-1]


@pytest.mark.slow
@pytest.mark.usefixtures("hurried")
def test_a_wait_for_one_who_lives_ends_too(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "LONGEST", 1.0)
    other = Lease(path)
    assert other.take() is None
    with held(path, lambda: None) as found:
        assert found is None
    other.release()


def test_a_guard_dated_ahead_is_in_nobodys_way(path: Path) -> None:
    leave(path, machine="elsewhere", seconds_ago=1e6)
    guard = path.with_name(".lock.clearing")
    guard.touch()
    os.utime(guard, (time.time() + DAY,) * 2)
    assert Lease(path).take() is None
    assert not guard.exists()


@pytest.mark.parametrize("change", [{"pid": "1"}, {"pid": 0}, {"pid": None}, {"born": 7}, {"token": []}, {"host": {}}])
def test_a_lease_of_wrong_types_is_that_of_nobody_known_and_expires(path: Path, change: dict[str, Any]) -> None:
    path.write_text(json.dumps(this_process()._asdict() | change))
    assert Lease(path).take() is not None
    os.utime(path, (time.time() - 70,) * 2)
    assert Lease(path).take() is None


@pytest.mark.slow
def test_a_lease_dated_ahead_in_an_object_store_expires(bucket: S3Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = bucket / ".lock"
    dead = this_process()._replace(machine="elsewhere", host="node7")
    assert at(place).create(json.dumps(dead._asdict()).encode())
    ask = S3Storage.head
    first = ask(S3Storage(place))["LastModified"]

    def head(self: S3Storage) -> dict[str, Any]:
        answer = ask(self)
        ahead = timedelta(days=answer["LastModified"] == first)
        return answer | {"LastModified": answer["LastModified"] + ahead}

    monkeypatch.setattr(S3Storage, "head", head)
    time.sleep(1.1)  # dates there have no fractions of a second
    assert Lease(place).take() == dead
    assert ask(S3Storage(place))["LastModified"] > first  # dated now
    monkeypatch.setattr(leases, "EXPIRY", 1.0)
    time.sleep(2.5)
    lease = Lease(place)
    assert lease.take() is None
    lease.release()


@pytest.mark.slow
@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("kind", ["lock", "models"])
def test_a_sweep_with_leases_dated_ahead_is_completed(done: Done, tmp_path: Path, kind: str, feed: Feed) -> None:
    sweep_dir, models = tmp_path / "tiny", tmp_path / "store" / "model"
    names = [folder.name for folder in (done.out / "store" / "model").iterdir()]
    assert names
    places = [models / f".{name}.lease" for name in names] if kind == "models" else [sweep_dir / ".lock"]
    for place in places:
        place.parent.mkdir(parents=True, exist_ok=True)
        leave(place, machine="another boot", host="node7", seconds_ago=-DAY)
    arguments = ["--config", str(write_config(tmp_path)), "--out", str(tmp_path), "--inline", "--no-tracking"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Driver, "_analyse", lambda self: 0)
        end = time.monotonic() + 60
        while main(arguments) == 2 and kind == "lock":  # "its lock is free after"
            assert time.monotonic() < end
            time.sleep(0.2)
    assert not any(map(Path.exists, places))
    feed("lease dated ahead", sweep_dir, done.trials, tried=len(places))
    assert science(read_trials(sweep_dir)) == science(done.trials)
