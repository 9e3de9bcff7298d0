"""Plug-in for `benchmarks/pipeline_scale.py`: unlearners that do next to nothing, so that what is left is overhead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Float, Range
from unlearn_core.types import Task, Update

METHODS = 20  # how many of them there are, all alike


@dataclass(frozen=True, kw_only=True)
class Nudge:
    """Shrinks the first half of every parameter once: results vary with the setting, at no FLOPs."""

    needs: ClassVar[tuple[str, ...]] = ()
    anytime: ClassVar[bool] = True

    shrink: float = 0.1  # share of each weight that is taken away

    def updates(self, task: Task) -> Iterator[Update]:
        yield Update("nudge", 0)
        with torch.no_grad():
            for parameter in task.model.parameters():
                parameter.view(-1)[: parameter.numel() // 2].mul_(1 - self.shrink)

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return {"shrink": Float(0.0, 1.0)}


for number in range(METHODS):
    UNLEARNERS.register(f"nudge{number:02d}")(type(f"Nudge{number:02d}", (Nudge,), {"__doc__": Nudge.__doc__}))
