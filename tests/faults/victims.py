"""Whom a kill hits and when: the command, what it has started, or what that has started."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import NamedTuple

from tests.faults.harness import Sweep
from tests.faults.looks import descendants, running, runs_shown

STEPS = 8  # the most trials that begin between a start of the command and its end
LOOK = 0.05  # seconds between two looks at all processes

Victim = Callable[[Sweep, int], int | None]  # of the sweep and the process of its command


class Aim(NamedTuple):
    """A process, and how many seconds after it could first be named it is killed."""

    victim: Victim
    moment: float


def driver(random: Random, first: float) -> Aim:
    """The command: in its first seconds, or so many trials after it had its lock."""
    if random.random() < 0.5:
        return Aim(lambda sweep, command: command, random.uniform(0, first))
    trials, before = random.randint(0, STEPS), list[int]()

    def due(sweep: Sweep, command: int) -> int | None:
        if not before and sweep.driver():
            before.append(len(sweep.starts()))
        return command if before and len(sweep.starts()) >= before[0] + trials else None

    return Aim(due, random.uniform(0, 0.4))


def inline_driver(random: Random) -> Aim:
    return driver(random, 4.0)


def driver_on_ray(random: Random) -> Aim:
    return driver(random, 12.0)


def starting(program: str) -> Callable[[Random], Aim]:
    """A program of Ray, a moment after it was started."""
    return lambda random: Aim(lambda sweep, command: _program(command, program), random.uniform(0, 3))


def at_work(program: str) -> Callable[[Random], Aim]:
    """A program of Ray, once there are trials."""

    def due(sweep: Sweep, command: int) -> int | None:
        return _program(command, program) if sweep.in_trial() is not None else None

    return lambda random: Aim(due, random.uniform(0, 0.5))


def _program(command: int, program: str) -> int | None:
    time.sleep(LOOK)
    return next((pid for pid, name in descendants(command).items() if name == program), None)


def training(random: Random) -> Aim:
    return Aim(lambda sweep, command: sweep.in_training(), random.uniform(0, 0.1))


def trial(random: Random) -> Aim:
    return Aim(lambda sweep, command: sweep.in_trial(), random.uniform(0, 0.2))


def mirror_at_first(random: Random) -> Aim:
    """The mirror, within the first second in which it makes MLflow's database."""

    def due(sweep: Sweep, command: int) -> int | None:
        made = any(sweep.out.glob(".mlflow.db.new-*"))
        return next(iter(running(command, "sweeps.tracking.sync")), None) if made else None

    return Aim(due, random.uniform(0, 1))


def mirror_later(random: Random) -> Aim:
    """The mirror, once the tracking store shows runs."""

    def due(sweep: Sweep, command: int) -> int | None:
        time.sleep(LOOK)
        sends = len(runs_shown(sweep.out / "mlflow.db")) > 1
        return next(iter(running(command, "sweeps.tracking.sync")), None) if sends else None

    return Aim(due, random.uniform(0, 1))


def analysis(random: Random) -> Aim:
    def due(sweep: Sweep, command: int) -> int | None:
        time.sleep(LOOK)
        return next(iter(running(command, "analysis.report")), None)

    return Aim(due, random.uniform(0, 4))
