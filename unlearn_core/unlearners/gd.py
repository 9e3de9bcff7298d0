"""Fine-tuning on the retain set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Float, Int, Range
from unlearn_core.types import Task, Update
from unlearn_core.unlearners.settings import LoopSettings, loop_space


@UNLEARNERS.register("gd")
@dataclass(frozen=True, kw_only=True)
class GD(LoopSettings):
    """Fine-tunes on the retain set and hopes that the poison is overwritten.

    θ ← θ − η ∇L_retain(θ), with momentum and weight decay. Never reads the forget set.

    Source: Neel, Roth, Sharifi-Malvajerdi, ALT 2021, arXiv:2007.02923; Warnecke et al. for the baseline.
    """

    needs: ClassVar[tuple[str, ...]] = ("retain", "retain_labels")

    def updates(self, task: Task) -> Iterator[Update]:
        return self.fine_tune(task)

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return loop_space(lr=Float(1e-3, 1.0, log=True), epochs=Int(1, 10))
