"""The process that runs the sweep is killed, at any moment and on any executor, or is not the only one."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.harness import Sweep, Undisturbed, settle
from tests.faults.looks import runs_shown

STEPS = 8  # the most trials that begin between a start of the command and its end


def kill_at_random(sweep: Sweep, rng: random.Random) -> bool:
    """Whether the driver was alive when it was to be killed: so many trials after it had its lock, and a moment."""
    trials, moment = rng.randint(0, STEPS), rng.uniform(0, 0.4)
    running: list[int] = []

    def due() -> bool:
        if not running and sweep.driver():
            running.append(len(sweep.starts()))
        return bool(running) and len(sweep.starts()) >= running[0] + trials

    process = sweep.start()
    if sweep.wait(process, due):
        time.sleep(moment)
    alive = process.poll() is None
    process.kill()
    process.wait()
    return alive


def kill_again_and_again(
    undisturbed: Undisturbed, folder: Path, kills: int, seed: int, *options: str, slots: int
) -> None:
    """Kill drivers until it was done so often, letting each sweep complete that gets to its end."""
    rng, fault = random.Random(seed), "driver killed" if slots == 1 else "driver on Ray killed"
    print(f"seed {seed}, repeat with --fault-seed {seed}")
    number = 0
    while kills:
        sweep, killed = Sweep(folder / str(number), *options), 0
        while kills and kill_at_random(sweep, rng):
            killed, kills = killed + 1, kills - 1
        sweep.finish()
        settle(sweep, undisturbed, fault, tried=killed, slots=slots, seeds=[] if number else [seed])
        number += 1


SLOW, NIGHTLY = [pytest.mark.slow, pytest.mark.timeout(1800)], [pytest.mark.nightly, pytest.mark.timeout(7200)]


@pytest.mark.parametrize("kills", [pytest.param(1, marks=SLOW), pytest.param(16, marks=NIGHTLY)])
def test_a_driver_killed_at_random_moments(
    undisturbed: Undisturbed, tmp_path: Path, fault_seed: int, kills: int
) -> None:
    kill_again_and_again(undisturbed, tmp_path, kills, fault_seed, "--inline", slots=1)


@pytest.mark.ray
@pytest.mark.parametrize("kills", [pytest.param(1, marks=SLOW), pytest.param(6, marks=NIGHTLY)])
def test_a_driver_on_ray_killed_at_random_moments(
    undisturbed: Undisturbed, tmp_path: Path, fault_seed: int, kills: int
) -> None:
    kill_again_and_again(undisturbed, tmp_path, kills, fault_seed, slots=2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_driver_killed_beside_its_mirror_leaves_no_run_twice(undisturbed: Undisturbed, tmp_path: Path) -> None:
    base = tmp_path / "mlflow.db"
    sweep = Sweep(tmp_path / "sweep", "--inline", "--tracking-uri", f"sqlite:///{base}")
    sweep.order("hang", undisturbed.begun()[8])  # until the mirror is at work: to start takes it longer than the sweep
    code = sweep.run_until(lambda: sweep.records() > 12 and len(runs_shown(base)) > 1)
    assert code == -signal.SIGKILL, sweep.said()
    (sweep.place / "hang").unlink()
    sweep.finish()
    settle(sweep, undisturbed, "driver killed")
    sweep.finish("--sync-mlflow")  # nothing is left to send, unless the machine was so busy that it was not waited for
    shown = runs_shown(base)
    assert set(shown.values()) == {1}
    assert {key for key in shown if key.startswith("trial/")} == {f"trial/{t['trial_id']}" for t in sweep.trials()}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_of_two_drivers_started_at_once_one_is_refused(undisturbed: Undisturbed, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "sweep", "--inline")
    both = [sweep.start(), sweep.start()]
    for process in both:
        sweep.wait(process)
    assert sorted(process.returncode for process in both) == [0, 2], sweep.said()
    assert f"error: another process is running this sweep in {sweep.dir}: process " in sweep.said()
    settle(sweep, undisturbed, "two drivers at once", slots=0)
