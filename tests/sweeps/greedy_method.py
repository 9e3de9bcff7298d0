"""A plug-in: a method that runs out of memory in some trials unless the worker has a whole GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from unlearn_core.registry import UNLEARNERS
from unlearn_core.scenarios.method_check import FORGET
from unlearn_core.types import Task, Update
from unlearn_core.unlearners.gd import GD


@UNLEARNERS.register("greedy")
@dataclass(frozen=True, kw_only=True)
class Greedy(GD):
    """Fine-tuning that needs a lot of memory for small steps."""

    def updates(self, task: Task) -> Iterator[Update]:
        updates = super().updates(task)
        yield next(updates)
        if len(task.forget) > FORGET and self.lr < 0.05 and share() < 1:  # fewer rows: somebody looks whether it fits
            raise torch.OutOfMemoryError("CUDA out of memory")
        yield from updates


def share() -> float:
    import ray

    given = ray.get_runtime_context().get_assigned_resources()
    return float(given.get("GPU", 0))
