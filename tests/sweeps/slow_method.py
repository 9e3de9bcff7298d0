"""A plug-in: a method that takes its time, and says in a file when it begins and ends."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from unlearn_core.registry import UNLEARNERS
from unlearn_core.scenarios.method_check import FORGET
from unlearn_core.types import Task, Update
from unlearn_core.unlearners.gd import GD


@UNLEARNERS.register("unhurried")
@dataclass(frozen=True, kw_only=True)
class Unhurried(GD):
    """Fine-tuning with a pause."""

    seconds: float = 1.0

    def updates(self, task: Task) -> Iterator[Update]:
        updates = super().updates(task)
        yield next(updates)
        if len(task.forget) <= FORGET:  # somebody only looks whether the method fits
            yield from updates
            return
        note("begin")
        time.sleep(self.seconds)
        note("end")
        yield from updates


def note(what: str) -> None:
    with open(os.environ["UNHURRIED_LOG"], "a") as file:
        file.write(f"{what}\n")
