"""A Ray that is ended from outside, at its start or later: a line of ours within a minute, and nothing of it stays."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sweeps.ray_home import PREFIX, processes_of
from tests.faults.harness import Sweep
from tests.faults.looks import descendants

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1800)]
MINUTE, SECONDS = 60.0, 30.0  # for a line, and for everything to be gone


@pytest.fixture
def place() -> Iterator[Path]:
    """The only temporary folder that the command knows, with a short name."""
    folder = Path(tempfile.mkdtemp(prefix="p", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def sweep(tmp_path: Path, place: Path) -> Sweep:
    return Sweep(tmp_path / "sweep", environment={"TMPDIR": str(place)})


def kill_and_wait(sweep: Sweep, due: Callable[[int], list[int]], place: Path) -> str:
    """Start the command, kill what `due` names as soon as it names anything; returns what the command said last."""
    process = sweep.start()
    named: list[int] = []
    assert sweep.wait(process, lambda: bool(named.extend(due(process.pid)) or named)), sweep.said()
    homes = list(place.glob(f"{PREFIX}*"))
    for pid in named:
        os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    process.wait(MINUTE)
    wait_for(lambda: "finished trials are kept" in sweep.said(), MINUTE - (time.monotonic() - began))
    wait_for(lambda: not any(map(processes_of, homes)) and not list(place.glob(f"{PREFIX}*")), SECONDS)
    assert homes
    return sweep.said().splitlines()[-1]


def wait_for(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def started(program: str) -> Callable[[int], list[int]]:
    """A program of Ray, a moment after it was started."""
    moment = random.uniform(0, 3)

    def due(driver: int) -> list[int]:
        found = [pid for pid, name in descendants(driver).items() if name == program]
        if found:
            time.sleep(moment)
        return found

    return due


@pytest.mark.parametrize("program", ["raylet", "gcs_server"])
def test_a_ray_that_dies_while_it_starts(sweep: Sweep, place: Path, program: str) -> None:
    said = kill_and_wait(sweep, started(program), place)
    assert said.startswith("error: Ray ")
    assert "Traceback" not in sweep.said()


@pytest.mark.parametrize("program", ["raylet", "gcs_server"])
def test_a_ray_that_dies_at_work(sweep: Sweep, place: Path, program: str) -> None:
    def due(driver: int) -> list[int]:
        at_work = sweep.in_trial() is not None
        return [pid for pid, name in descendants(driver).items() if name == program] if at_work else []

    assert kill_and_wait(sweep, due, place).startswith("error: ")
    assert "Traceback" not in sweep.said()


def test_nothing_of_ray_stays_after_a_driver_was_killed(sweep: Sweep, place: Path) -> None:
    sockets: set[str] = set()

    def due(driver: int) -> list[int]:
        if sweep.in_trial() is None:
            return []
        sockets.update(set().union(*map(sockets_of, descendants(driver))) & set(listening()))
        return [driver]

    said = kill_and_wait(sweep, due, place)
    assert "was ended from outside; finished trials are kept" in said
    still = {socket: port for socket, port in listening().items() if socket in sockets}
    assert sockets and not still


def listening() -> dict[str, int]:
    """Sockets on which processes take connections, and their ports."""
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return {line[9]: int(line[1].rpartition(":")[2], 16) for line in lines if line[3] == "0A"}


def sockets_of(pid: int) -> set[str]:
    found = set[str]()
    with contextlib.suppress(OSError):
        for number in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.add(os.readlink(number).removeprefix("socket:[").removesuffix("]"))
    return found
