"""A plug-in for sweeps that are disturbed: methods that write down when a trial begins, and what goes wrong on demand.

Everything is asked for by files in the folder FAULTS_DIR. `starts` gets a line per trial that begins. An empty file
`cut NAME` makes the next process that has written a file whose name ends so leave half of it and die as by SIGKILL,
before the system has said that it is on disk; that happens once. The trials listed in `hang` never end, those in
`crash` end their process by a segmentation fault. Nothing here changes a number of a trial that ends.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_core.registry import UNLEARNERS
from unlearn_core.types import Task, Update
from unlearn_core.unlearners.gd import GD
from unlearn_core.unlearners.ngd import NGD
from unlearn_core.unlearners.settings import LoopSettings

PLACE = Path(os.environ["FAULTS_DIR"]) if "FAULTS_DIR" in os.environ else None
SECONDS = 0.1  # that a trial takes longer than it needs, so that what comes at random meets one at work

fsync = os.fsync


def begun(method: LoopSettings, task: Task) -> None:
    """Write down that a trial begins, in one write, which no other process can tear."""
    if PLACE is None:
        return
    key = f"{task.rng.seed} {json.dumps(dataclasses.asdict(method))}"
    with open(PLACE / "starts", "ab", buffering=0) as file:
        file.write(f"{os.getpid()} {key}\n".encode())
    if key in listed("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    while key in listed("hang"):
        time.sleep(0.1)
    time.sleep(SECONDS)


def listed(name: str) -> list[str]:
    file = (PLACE or Path()) / name
    return file.read_text().splitlines() if file.exists() else []


def cut_and_die(file: Any) -> None:
    """`os.fsync`, unless the file is to be cut."""
    number = file if isinstance(file, int) else file.fileno()
    name = os.readlink(f"/proc/self/fd/{number}")
    for order in PLACE.glob("cut *") if PLACE else ():
        if name.endswith(order.name.removeprefix("cut ")) and taken(order):
            data = Path(name).read_bytes()
            before = data[:-1].rfind(b"\n") + 1 if name.endswith(".jsonl") else 0
            os.truncate(name, (before + len(data)) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
    fsync(number)


def taken(order: Path) -> bool:
    """Whether this process is the one that carries out an order."""
    try:
        order.unlink()
    except FileNotFoundError:
        return False
    return True


os.fsync = cut_and_die  # type: ignore[assignment]


@UNLEARNERS.register("counted_gd")
@dataclass(frozen=True, kw_only=True)
class CountedGD(GD):
    """Fine-tuning that is counted."""

    def updates(self, task: Task) -> Iterator[Update]:
        begun(self, task)
        yield from super().updates(task)


@UNLEARNERS.register("counted_ngd")
@dataclass(frozen=True, kw_only=True)
class CountedNGD(NGD):
    """Noisy fine-tuning that is counted."""

    def updates(self, task: Task) -> Iterator[Update]:
        begun(self, task)
        yield from super().updates(task)
