"""Any process of a sweep is killed at random moments; the same command then completes it and nothing else stays.

After a kill a line is said within a minute, or the command goes on; no trial is lost, changed, or done more often than
it was under way. `--fault-seed N` repeats the moments.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from tests.faults import victims
from tests.faults.harness import Sweep, Undisturbed, settle
from tests.faults.looks import runs_shown
from tests.faults.remains import Remains, left_by, wait_for_end_of
from tests.faults.victims import Aim

MINUTE, SECONDS = 60.0, 30.0  # for a line, and for everything to be gone
ENDED = "finished trials are kept"
NO_RAY = rf"error: .*{ENDED}"


class Kill(NamedTuple):
    """fault: row of the table. slots: trials that were under way. says: what is said if the command fails. again: what
    is added to the same command for the next kill of the same sweep, if there can be any."""

    fault: str
    aim: Callable[[Random], Aim]
    options: tuple[str, ...] = ()
    slots: int = 0
    says: str = ""
    again: tuple[str, ...] = ()


RAY_DRIVER, RAY_WORK = "driver on Ray killed", "Ray's own process on the driver's machine killed"
MIRROR, MIRROR_SAYS = ("--inline", "--tracking-uri"), "MLflow has not got everything"
SYNC = ("--sync-mlflow",)
KILLS = {
    "driver": Kill("driver killed", victims.inline_driver, ("--inline",), 1),
    "driver on Ray": Kill(RAY_DRIVER, victims.driver_on_ray, slots=2, says=f"was ended from outside; {ENDED}"),
    "raylet at first": Kill("raylet killed while Ray starts", victims.starting("raylet"), (), 2, NO_RAY),
    "gcs_server at first": Kill("gcs_server killed while Ray starts", victims.starting("gcs_server"), (), 2, NO_RAY),
    "raylet": Kill(RAY_WORK, victims.at_work("raylet"), (), 2, NO_RAY),
    "gcs_server": Kill(RAY_WORK, victims.at_work("gcs_server"), (), 2, NO_RAY),
    "worker in a training": Kill("worker killed in a training", victims.training, (), 1),
    "worker in a trial": Kill("worker killed in a trial", victims.trial, (), 1),
    "mirror at first": Kill(
        "mirror killed while it makes MLflow's database", victims.mirror_at_first, MIRROR, 0, MIRROR_SAYS, SYNC
    ),
    "mirror": Kill("mirror killed while it sends", victims.mirror_later, MIRROR, 0, MIRROR_SAYS, SYNC),
    "analysis": Kill("analysis killed", victims.analysis, ("--inline",), 0, "error: the report was not made"),
}
NIGHT = {
    "driver": 16, "driver on Ray": 8, "raylet at first": 5, "gcs_server at first": 5, "raylet": 3, "gcs_server": 3,
    "worker in a training": 3, "worker in a trial": 3, "mirror at first": 6, "mirror": 4, "analysis": 4,
}  # fmt: skip
"""Kills in a night."""
DAILY = ("driver", "driver on Ray", "raylet at first", "gcs_server", "mirror at first", "analysis")
"""Once with the slow tests."""


def cases() -> Iterator[object]:
    for name, kill in KILLS.items():
        ray = [pytest.mark.ray] if "--inline" not in kill.options else []
        slow, night = [pytest.mark.slow, pytest.mark.timeout(1800)], [pytest.mark.nightly, pytest.mark.timeout(7200)]
        if name in DAILY:
            yield pytest.param(name, 1, marks=[*slow, *ray])
        yield pytest.param(name, NIGHT[name], marks=[*night, *ray])


@pytest.fixture
def place() -> Iterator[Path]:
    """The only temporary folder that the command knows, with a short name."""
    folder = Path(tempfile.mkdtemp(prefix="p", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_night_has_sixty_kills() -> None:
    assert NIGHT.keys() == KILLS.keys()
    assert sum(NIGHT.values()) == 60


@pytest.mark.parametrize("name, kills", list(cases()))
def test_what_is_killed_is_completed_and_nothing_stays(
    undisturbed: Undisturbed, tmp_path: Path, place: Path, fault_seed: int, name: str, kills: int
) -> None:
    kill, random, number = KILLS[name], Random(f"{fault_seed} {name}"), 0
    print(f"seed {fault_seed}, repeat with --fault-seed {fault_seed}")
    while kills:
        sweep = started_in(tmp_path / str(number), place, kill)
        killed = kill_again_and_again(sweep, place, kill, random, kills)
        kills, number = kills - killed, number + 1
        sweep.finish()
        wait_for_end_of(partial(left_by, sweep.mark, place), SECONDS)
        seeds = [] if number > 1 else [fault_seed]
        settle(sweep, undisturbed, kill.fault, tried=killed, slots=kill.slots, seeds=seeds)
        if kill.again:
            check_mirrored(sweep)
        assert sweep.silence <= MINUTE, sweep.said()


def check_mirrored(sweep: Sweep) -> None:
    """MLflow has each trial once, and its database is the only one there."""
    sweep.finish("--sync-mlflow")
    shown = runs_shown(sweep.out / "mlflow.db")
    assert set(shown.values()) == {1}
    assert {key for key in shown if key.startswith("trial/")} == {f"trial/{t.trial_id}" for t in sweep.trials()}
    assert not list(sweep.out.glob(".mlflow.db.new-*"))


def started_in(folder: Path, place: Path, kill: Kill) -> Sweep:
    uri = [f"sqlite:///{folder / 'mlflow.db'}"] if "--tracking-uri" in kill.options else []
    environment = {"TMPDIR": str(place)}
    return Sweep(folder, *kill.options, *uri, report=kill.fault == "analysis killed", environment=environment)


def kill_again_and_again(sweep: Sweep, place: Path, kill: Kill, random: Random, most: int) -> int:
    """How many kills there were: until one finds its victim no more, or the command went on and finished."""
    done, more = 0, tuple[str, ...]()
    while done < most and hit(sweep, place, kill, kill.aim(random), *more):
        done, more = done + 1, kill.again
    return done


def hit(sweep: Sweep, place: Path, kill: Kill, aim: Aim, *more: str) -> bool:
    """Start the command, kill the victim at its moment, and wait for all of it to end. False if there was no victim."""
    process, before = sweep.start(*more), len(sweep.said())
    named: list[int] = []

    def due() -> bool:
        named.extend(filter(None, [aim.victim(sweep, process.pid)]))
        return bool(named)

    if sweep.wait(process, due):
        time.sleep(aim.moment)
    remains = Remains(process.pid, sweep.mark, place)
    if process.poll() is not None or not kill_process(named[0]):
        sweep.wait(process)
        return False
    sweep.wait(process)
    by_others = process.returncode and (process.returncode > 0 or remains.homes)  # Ray's keeper speaks for a driver
    if kill.says and (kill.again or by_others):
        wait_for_end_of(lambda: not re.search(kill.says, sweep.said()[before:]) and sweep.said(), MINUTE)
    if process.returncode:  # Tune shows one where a worker was lost, and goes on
        assert "Traceback" not in sweep.said()[before:], sweep.said()
    wait_for_end_of(remains.left, SECONDS)
    return True


def kill_process(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False
