"""Settings and steps that all gradient methods share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unlearn_core import checks
from unlearn_core.space import Choice, Float, Int, Range
from unlearn_core.training import (
    OPTIMIZERS,
    batches,
    build_optimizer,
    descend,
    rows_of,
    schedule_factor,
    steps_per_epoch,
)
from unlearn_core.training.trainable import set_training
from unlearn_core.types import Examples, Task, Update

BN_POLICIES = ("train", "frozen")


@dataclass(frozen=True, kw_only=True)
class StepSettings:
    """How a gradient method makes its steps.

    Attributes:
        bn: `train` lets BatchNorm update its running statistics, `frozen` keeps the whole model in evaluation mode.
            Modules whose parameters the model itself has frozen are in evaluation mode with either.
    """

    anytime: ClassVar[bool] = True

    lr: float = 0.01  # step size
    epochs: int = 10  # passes over the set that the method loops over; the budget may end it earlier
    batch_size: int = 128  # rows per update
    momentum: float = 0.9  # SGD momentum, or AdamW's beta1
    weight_decay: float = 5e-4  # added to the gradient: this times the weight (AdamW: decoupled from it)
    optimizer: str = "sgd"  # `sgd` or `adamw`
    bn: str = "train"  # `train`, or `frozen`: BatchNorm keeps its running statistics

    def __post_init__(self) -> None:
        checks.not_negative(lr=self.lr, weight_decay=self.weight_decay)
        checks.in_range("epochs", self.epochs, 1, 10**6)
        checks.in_range("batch_size", self.batch_size, 1, 10**7)
        checks.in_range("momentum", self.momentum, 0, 0.9999)
        checks.one_of("optimizer", self.optimizer, OPTIMIZERS)
        checks.one_of("bn", self.bn, BN_POLICIES)

    def optimizer_for(self, module: nn.Module) -> torch.optim.Optimizer:
        """Steps on the module's parameters that are not frozen."""
        return self.optimizer_of(module.parameters())

    def optimizer_of(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        return build_optimizer(
            parameters,
            name=self.optimizer,
            lr=self.lr,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )

    def set_mode(self, module: nn.Module) -> None:
        set_training(module, self.bn == "train")


@dataclass(frozen=True, kw_only=True)
class LoopSettings(StepSettings):
    """Steps on one loss over epochs of one set.

    Attributes:
        schedule: The step size over the method's own `epochs` (not over the budget, so that a run can stop anywhere).
    """

    schedule: str = "constant"  # `constant`, or `cosine` or `linear` to zero at the end of `epochs`

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("schedule", self.schedule, ("constant", "cosine", "linear"))

    def lr_at(self, rows: int) -> Callable[[int], float]:
        """Step size by step number, for a loop over `rows` rows."""
        total = self.epochs * max(1, steps_per_epoch(rows, self.batch_size))
        return lambda step: self.lr * schedule_factor(self.schedule, min(1.0, step / total))

    def loop(
        self,
        task: Task,
        examples: Examples,
        loss: Callable[[tuple[Tensor, Tensor]], Tensor],
        *,
        optimizer: torch.optim.Optimizer,
        label: str = "retain",
    ) -> Iterator[Update]:
        """`epochs` passes over `examples`, one step per batch on `loss`; `label` names the phase and data order."""
        stream = batches(
            examples,
            self.batch_size,
            task.rng,
            label,
            epochs=range(self.epochs),
            augmentation=task.recipe.augmentation,
        )
        return descend(stream, loss, optimizer, phase=label, size=rows_of, lr=self.lr_at(len(examples)))

    def fine_tune(self, task: Task) -> Iterator[Update]:
        """Cross-entropy descent of the whole model on the retain set."""
        self.set_mode(task.model)
        optimizer = self.optimizer_for(task.model)
        return self.loop(task, task.retain, lambda batch: cross_entropy(task.model, batch), optimizer=optimizer)


def loop_space(*, lr: Float, epochs: Int) -> dict[str, Range]:
    """The search space that loops share; each method adds its own settings."""
    return {"lr": lr, "epochs": epochs, "schedule": Choice(("constant", "cosine"))}


def cross_entropy(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy of a batch in nats, computed in float32."""
    inputs, targets = batch
    return nn.functional.cross_entropy(model(inputs).float(), targets)
