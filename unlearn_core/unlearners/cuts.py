"""The change that learning the forget set makes, subtracted."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch

from unlearn_core import checks
from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Float, Int, Range
from unlearn_core.training.trainable import trainable
from unlearn_core.types import Task, Update
from unlearn_core.unlearners.settings import LoopSettings, cross_entropy, loop_space


@UNLEARNERS.register("cuts")
@dataclass(frozen=True, kw_only=True)
class CUTS(LoopSettings):
    """CUTS (task-vector negation): θ = θ0 − c (θ⁺ − θ0), where θ⁺ is θ0 fine-tuned on the forget set as it is labelled.

    Never reads the retain set. θ follows θ⁺ after each of its steps, so a run stopped early is one of fewer steps. The
    statistics of BatchNorm stay those of θ0; by default θ⁺ is trained with them too. One step of SGD is one step of
    gradient ascent of c times its size.

    Source: Mozafari, Wani, Bucarelli, Silvestri, 2025, arXiv:2511.18660; Ilharco et al., ICLR 2023, arXiv:2212.04089.
    Deviations: written from the formula, with the forget set as their proxy set; c is a setting, where the authors
    calibrate it.
    """

    needs: ClassVar[tuple[str, ...]] = ("forget", "forget_labels")

    lr: float = 1e-3
    epochs: int = 5  # passes over the forget set
    batch_size: int = 64
    bn: str = "frozen"
    coefficient: float = 1.0  # c; -1 is θ⁺ itself

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.in_range("coefficient", self.coefficient, -1, 1000)

    def updates(self, task: Task) -> Iterator[Update]:
        learned = copy.deepcopy(task.model)
        start = {name: p.detach().clone() for name, p in trainable(task.model).items()}
        self.set_mode(learned)
        optimizer = self.optimizer_for(learned)

        @torch.no_grad()
        def follow(*_: object) -> None:
            now = trainable(learned)
            for name, parameter in trainable(task.model).items():
                parameter.copy_(start[name].lerp(now[name], -self.coefficient))

        optimizer.register_step_post_hook(follow)
        return self.loop(
            task, task.forget, lambda batch: cross_entropy(learned, batch), optimizer=optimizer, label="forget"
        )

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return loop_space(lr=Float(1e-4, 0.1, log=True), epochs=Int(1, 20)) | {"coefficient": Float(0.1, 5.0, log=True)}
