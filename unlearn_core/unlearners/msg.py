"""Convolution weights with the smallest gradients drawn anew, then repaired on the retain set."""

from __future__ import annotations

import copy
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unlearn_core import checks
from unlearn_core.checks import InputError
from unlearn_core.models.initialise import initialise
from unlearn_core.registry import UNLEARNERS
from unlearn_core.seeding import derive
from unlearn_core.space import Choice, Float, Int, Range
from unlearn_core.training.trainable import trainable
from unlearn_core.types import Task, Update
from unlearn_core.unlearners.salun import gradient_sums
from unlearn_core.unlearners.settings import LoopSettings, cross_entropy, loop_space


@UNLEARNERS.register("msg")
@dataclass(frozen=True, kw_only=True)
class MSG(LoopSettings):
    """Masked small gradients: re-initialises part of each convolution, then fine-tunes on the retain set.

    In each convolution kernel the round(reset_share · size) weights of smallest |∇L_retain − ∇L_forget| at θ0 are drawn
    anew; the retain gradient comes from as many rows as the forget set has. In the fine-tuning, gradients of the other
    kernel weights are multiplied by `kept_scale`. With reset_share = 0 and kept_scale = 1 it is GD bit for bit; models
    without convolutions, where it would be GD under another name, are refused.

    Source: second of the NeurIPS 2023 unlearning competition, as described by Cadet et al., 2024, arXiv:2410.01276.
    Deviations: gradients in evaluation mode; optimiser settings are ours where the description gives none.
    """

    needs: ClassVar[tuple[str, ...]] = ("forget", "forget_labels", "retain", "retain_labels", "initialisation")

    lr: float = 1e-3
    epochs: int = 5
    reset_share: float = 0.3  # share of each kernel's weights that is drawn anew
    kept_scale: float = 0.1  # factor on the gradients of the kernel weights that were kept

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.in_range("reset_share", self.reset_share, 0, 1)
        checks.not_negative(kept_scale=self.kept_scale)

    def updates(self, task: Task) -> Iterator[Update]:
        if not kernels(task.model):
            raise InputError("msg needs a model with convolutions, but this one has none; there it would be gd")
        differences = yield from self._differences(task)
        yield Update("reset", 0)
        model = copy.deepcopy(task.model)
        initialise(model, derive(task.rng.seed, "reset"), list(kernels(model)))
        fresh = kernels(model)
        optimizer = self.optimizer_for(task.model)
        for name, kernel in kernels(task.model).items():
            chosen = smallest(differences[name].abs(), self.reset_share)
            with torch.no_grad():
                kernel.copy_(torch.where(chosen, fresh[name], kernel))
            scale_gradient(optimizer, kernel, torch.where(chosen, 1.0, self.kept_scale))
        self.set_mode(task.model)
        yield from self.loop(task, task.retain, lambda batch: cross_entropy(task.model, batch), optimizer=optimizer)

    def _differences(self, task: Task) -> Generator[Update, None, dict[str, Tensor]]:
        """∇L_retain − ∇L_forget by parameter name."""
        order = torch.randperm(len(task.retain), generator=task.rng("sample"), device=task.retain.targets.device)
        retain = task.retain.rows(order[: len(task.forget)])
        kept = yield from gradient_sums(task.model, retain, chunk=self.batch_size, phase="gradient")
        lost = yield from gradient_sums(task.model, task.forget, chunk=self.batch_size, phase="gradient")
        return {name: kept[name] / len(retain) - lost[name] / len(task.forget) for name in kept}

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return loop_space(lr=Float(1e-4, 0.3, log=True), epochs=Int(1, 10)) | {
            "reset_share": Float(0.05, 0.9),
            "kept_scale": Choice((0.1, 1.0)),
        }


def kernels(model: nn.Module) -> dict[str, Tensor]:
    """The weights of all two-dimensional convolutions that are not frozen, by parameter name."""
    convolutions = {id(m.weight) for m in model.modules() if isinstance(m, nn.Conv2d)}
    return {name: parameter for name, parameter in trainable(model).items() if id(parameter) in convolutions}


def smallest(values: Tensor, share: float) -> Tensor:
    """Mask of the round(share · size) smallest `values`; of equal ones the first."""
    chosen = torch.zeros(values.numel(), dtype=torch.bool, device=values.device)
    chosen[values.flatten().sort(stable=True).indices[: round(share * values.numel())]] = True
    return chosen.view_as(values)


def scale_gradient(optimizer: torch.optim.Optimizer, parameter: Tensor, factor: Tensor) -> None:
    """Multiply the gradient by `factor` before every step of `optimizer`."""

    def scale(*_: object) -> None:
        if parameter.grad is not None:
            parameter.grad.mul_(factor)

    optimizer.register_step_pre_hook(scale)
