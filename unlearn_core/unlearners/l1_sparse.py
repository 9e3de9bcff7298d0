"""Fine-tuning on the retain set with an L1 penalty."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unlearn_core import checks
from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Choice, Float, Int, Range
from unlearn_core.training import steps_per_epoch
from unlearn_core.training.trainable import trainable
from unlearn_core.types import Task, Update
from unlearn_core.unlearners.settings import LoopSettings, cross_entropy, loop_space


@UNLEARNERS.register("l1_sparse")
@dataclass(frozen=True, kw_only=True)
class L1Sparse(LoopSettings):
    """L1-sparse fine-tuning: minimises L_retain(θ) + γ_e ‖θ‖₁, so that weights only the poison needs fade away.

    With E' = epochs − free_epochs: `down` γ_e = γ (1 − e/E'), `up` γ_e = γ (e + 1)/E', `constant` γ_e = γ in the
    epochs e = 0 .. E' − 1; none afterwards. `subgradient` adds γ_e sign(θ) to the gradient, which never gives an exact
    zero; `prox` follows each step by θ ← sign(θ) max(|θ| − η γ_e, 0). γ = 0 is GD bit for bit.

    Source: Jia, Liu, Ram, Yao, Liu, Liu, Sharma, Liu, NeurIPS 2023, arXiv:2304.04934.
    Deviations: the authors offer `down` and `subgradient` only; their γ has no separate default (they share one of
    0.2 with other methods), ours is one that moves small weights without erasing the model.
    """

    needs: ClassVar[tuple[str, ...]] = ("retain", "retain_labels")

    gamma: float = 1e-4  # strength of the penalty
    gamma_schedule: str = "down"
    free_epochs: int = 0  # last epochs, without penalty
    step: str = "subgradient"
    penalised: str = "all"  # `all`, or `weights`: no biases, no BatchNorm scales and shifts

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.not_negative(gamma=self.gamma, free_epochs=self.free_epochs)
        checks.one_of("gamma_schedule", self.gamma_schedule, ("down", "up", "constant"))
        checks.one_of("step", self.step, ("subgradient", "prox"))
        checks.one_of("penalised", self.penalised, ("all", "weights"))

    def updates(self, task: Task) -> Iterator[Update]:
        self.set_mode(task.model)
        optimizer = self.optimizer_for(task.model)
        strengths = self._strengths(len(task.retain))
        parameters = [p for p in trainable(task.model).values() if self.penalised == "all" or p.dim() > 1]
        if self.step == "prox":
            optimizer.register_step_post_hook(
                lambda own, *_: soft_threshold(parameters, own.param_groups[0]["lr"] * next(strengths))
            )
        else:
            optimizer.register_step_pre_hook(lambda *_: add_subgradient(parameters, next(strengths)))
        return self.loop(task, task.retain, lambda batch: cross_entropy(task.model, batch), optimizer=optimizer)

    def _strengths(self, rows: int) -> Iterator[float]:
        """γ_e of each step."""
        for epoch in range(self.epochs):
            for _ in range(steps_per_epoch(rows, self.batch_size)):
                yield self.gamma * self._share(epoch)

    def _share(self, epoch: int) -> float:
        """γ_e / γ."""
        penalised = self.epochs - self.free_epochs
        if epoch >= penalised:
            return 0.0
        shapes: dict[str, Callable[[], float]] = {
            "down": lambda: 1 - epoch / penalised,
            "up": lambda: (epoch + 1) / penalised,
            "constant": lambda: 1.0,
        }
        return shapes[self.gamma_schedule]()

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return loop_space(lr=Float(1e-3, 0.1, log=True), epochs=Int(1, 10)) | {
            "gamma": Float(1e-6, 1e-3, log=True),
            "gamma_schedule": Choice(("down", "up", "constant")),
            "free_epochs": Int(0, 2),
        }


@torch.no_grad()
def add_subgradient(parameters: Sequence[Tensor], strength: float) -> None:
    """∇ ← ∇ + strength · sign(θ)."""
    for parameter in parameters:
        if strength and parameter.grad is not None:
            parameter.grad.add_(parameter.sign(), alpha=strength)


@torch.no_grad()
def soft_threshold(parameters: Sequence[Tensor], threshold: float) -> None:
    """θ ← sign(θ) max(|θ| − threshold, 0); in place."""
    for parameter in parameters:
        if threshold:
            parameter.copy_(torch.nn.functional.softshrink(parameter, threshold))
