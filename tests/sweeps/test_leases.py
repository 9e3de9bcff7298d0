"""Leases: one holder at a time, whoever dies, and whatever the clocks say."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from sweeps.storage import leases
from sweeps.storage.holders import UNKNOWN, born_at
from sweeps.storage.leases import Lease, held
from sweeps.storage.local import LocalStorage
from tests.sweeps.left_lease import leave

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / ".lock"


def test_one_holder_at_a_time(path: Path) -> None:
    one, other = Lease(path), Lease(path)
    assert one.take() is None
    assert other.take() == one.holder
    other.release()
    assert other.take() == one.holder
    one.release()
    assert other.take() is None
    assert json.loads(path.read_text())["pid"] == os.getpid()
    other.release()
    assert list(path.parent.iterdir()) == []


def test_a_holder_is_told_by_host_process_and_time(path: Path) -> None:
    assert Lease(path).take() is None
    said = str(Lease(path).take())
    assert said.startswith(f"process {os.getpid()} on {os.uname().nodename}, since 20")


def _take_and_wait(path: Path, taken: Any) -> None:
    assert Lease(path).take() is None
    taken.set()
    time.sleep(600)


def test_a_lease_of_a_killed_process_is_free_at_once(path: Path) -> None:
    taken = FORK.Event()
    process = FORK.Process(target=_take_and_wait, args=(path, taken))
    process.start()
    assert taken.wait(30)
    holder = Lease(path).take()
    assert holder is not None
    assert holder.pid == process.pid
    os.kill(holder.pid, signal.SIGKILL)
    process.join(30)
    assert Lease(path).take() is None


@pytest.mark.parametrize("seconds_ago", [0.0, 1e6])
def test_a_later_process_of_the_same_number_is_another(path: Path, seconds_ago: float) -> None:
    leave(path, pid=os.getppid(), born="12345", seconds_ago=seconds_ago)
    assert Lease(path).take() is None


@pytest.mark.parametrize("seconds_ago", [0.0, 1e6, -1e6])
def test_a_process_of_this_machine_keeps_its_lease_whatever_the_clock_says(path: Path, seconds_ago: float) -> None:
    holder = leave(path, pid=os.getppid(), born=born_at(os.getppid()), seconds_ago=seconds_ago)
    assert Lease(path).take() == holder


@pytest.mark.parametrize(("seconds_ago", "free"), [(0, False), (50, False), (-1e6, False), (70, True)])
def test_a_lease_of_another_machine_expires_without_signs_of_life(path: Path, seconds_ago: float, free: bool) -> None:
    holder = leave(path, machine="elsewhere", host="node7", seconds_ago=seconds_ago)
    assert Lease(path).take() == (None if free else holder)


@pytest.mark.parametrize(("seconds_ago", "free"), [(0, False), (70, True)])
@pytest.mark.parametrize("text", ["", '{"host": "no', "[]", "{}"])
def test_a_lease_that_cannot_be_read_expires_as_well(path: Path, text: str, seconds_ago: float, free: bool) -> None:
    path.write_text(text)
    os.utime(path, (time.time() - seconds_ago,) * 2)
    assert Lease(path).take() == (None if free else UNKNOWN)


def test_a_holder_shows_that_it_lives_until_the_lease_is_not_its_own(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "BEAT", 0.05)
    lease = Lease(path)
    assert lease.take() is None
    os.utime(path, (0, 0))
    end = time.monotonic() + 10
    while path.stat().st_mtime < 1 and time.monotonic() < end:
        time.sleep(0.02)
    assert path.stat().st_mtime > 1
    stolen = leave(path, machine="elsewhere")
    lease.release()
    assert json.loads(path.read_text()) == stolen._asdict()


def _race(path: Path, barrier: Any, winners: Any, done: Any) -> None:
    barrier.wait(30)
    if Lease(path).take() is None:
        winners.put(os.getpid())
    done.wait(30)  # a holder that ends would make the lease free


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(5))
def test_of_many_that_find_a_dead_ones_lease_one_gets_it(path: Path, attempt: int) -> None:
    leave(path, machine="elsewhere", seconds_ago=1e6)
    barrier, winners, done = FORK.Barrier(8), FORK.Queue(), FORK.Barrier(8)
    processes = [FORK.Process(target=_race, args=(path, barrier, winners, done)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert winners.get(timeout=60) in [process.pid for process in processes]
    assert winners.empty()


def test_a_guard_left_by_a_killed_process_is_in_nobodys_way_for_long(path: Path) -> None:
    leave(path, machine="elsewhere", seconds_ago=1e6)
    guard = path.with_name(".lock.clearing")
    guard.touch()
    assert Lease(path).take() is not None
    os.utime(guard, (time.time() - 70,) * 2)
    assert Lease(path).take() is None
    assert not guard.exists()


def test_one_who_waits_gets_what_another_made(path: Path) -> None:
    leave(path, machine="elsewhere")
    looks: list[int] = []

    def done() -> str | None:
        looks.append(1)
        return "made" if len(looks) == 3 else None

    with held(path, done) as found:
        assert found == "made"


@pytest.mark.parametrize("number", leases.CANNOT)
def test_where_no_lease_can_be_taken_nobody_waits(path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: LocalStorage, data: bytes) -> bool:
        raise OSError(number, os.strerror(number), str(self.path))

    monkeypatch.setattr(LocalStorage, "create", refuse)
    with held(path, lambda: None) as found:
        assert found is None
