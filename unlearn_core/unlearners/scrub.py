"""Teacher-student unlearning with alternating steps."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from unlearn_core import checks
from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Choice, Float, Int, Range
from unlearn_core.training import batches, descend, rows_of
from unlearn_core.types import Task, Update
from unlearn_core.unlearners.settings import StepSettings

Batch = tuple[Tensor, Tensor]


@UNLEARNERS.register("scrub")
@dataclass(frozen=True, kw_only=True)
class SCRUB(StepSettings):
    """SCRUB: moves away from the corrupted model on the forget set, stays near it on the retain set.

    d = τ² mean KL(softmax(z_teacher/τ) ‖ softmax(z_student/τ)). In each of the first `max_epochs` epochs: one pass of
    max steps over the forget set, on −d; in every epoch: one pass of min steps over the retain set, on
    α d + γ CE. The teacher is a frozen copy of the corrupted model, in evaluation mode; its forward pass is charged.
    At the start student = teacher, where d and its gradient are zero: without BatchNorm or dropout the first max pass
    does nothing but decay weights. order="min_first" (not the authors' order) breaks that symmetry.

    Source: Kurmanji, Triantafillou, Hayes, Triantafillou, NeurIPS 2023, arXiv:2302.09880.
    Deviation: without rewinding (that is `scrub_r`).
    """

    needs: ClassVar[tuple[str, ...]] = ("forget", "retain", "retain_labels")

    lr: float = 5e-4
    epochs: int = 3  # passes over the retain set
    alpha: float = 1e-3  # weight of the distance on the retain set
    gamma: float = 0.99  # weight of the cross-entropy on the retain set
    temperature: float = 4.0  # temperature of both softmaxes in the distance
    max_epochs: int = 2  # epochs that begin with a pass over the forget set
    forget_batch_size: int = 32  # rows per update of a pass over the forget set
    decay_epochs: tuple[int, ...] = ()  # after each of these epochs the step size is divided by 10
    order: str = "max_first"  # which pass an epoch begins with; or min_first

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.not_negative(alpha=self.alpha, gamma=self.gamma, max_epochs=self.max_epochs)
        checks.positive(temperature=self.temperature, forget_batch_size=self.forget_batch_size)
        checks.one_of("order", self.order, ("max_first", "min_first"))

    def updates(self, task: Task) -> Iterator[Update]:
        return itertools.chain.from_iterable(self.epoch_updates(task))

    def epoch_updates(self, task: Task) -> Iterator[Iterator[Update]]:
        """The updates of each epoch; an epoch must be used up before the next is asked for."""
        teacher = copy.deepcopy(task.model).eval().requires_grad_(False)
        self.set_mode(task.model)
        optimizer = self.optimizer_for(task.model)

        def distances(batch: Batch) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                target = teacher(batch[0]).float()
            logits = task.model(batch[0]).float()
            return distillation(target, logits, self.temperature), logits

        def away(batch: Batch) -> Tensor:
            return -distances(batch)[0]

        def stay(batch: Batch) -> Tensor:
            distance, logits = distances(batch)
            return self.alpha * distance + self.gamma * functional.cross_entropy(logits, batch[1])

        def passes(epoch: int) -> Iterator[Update]:
            lr = self.lr * 0.1 ** sum(epoch + 1 > e for e in self.decay_epochs)
            for phase in self._phases(epoch):
                stream = self._one_pass(task, phase, epoch)
                loss = away if phase == "max" else stay
                yield from descend(stream, loss, optimizer, phase=phase, size=rows_of, lr=constant(lr))

        return map(passes, range(self.epochs))

    def _phases(self, epoch: int) -> tuple[str, ...]:
        if epoch >= self.max_epochs:
            return ("min",)
        return ("max", "min") if self.order == "max_first" else ("min", "max")

    def _one_pass(self, task: Task, phase: str, epoch: int) -> Iterator[Batch]:
        examples, size, label = (
            (task.forget, self.forget_batch_size, "forget")
            if phase == "max"
            else (task.retain, self.batch_size, "retain")
        )
        augmentation = task.recipe.augmentation
        return batches(examples, size, task.rng, label, epochs=[epoch], augmentation=augmentation)

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return {
            "lr": Float(1e-4, 0.3, log=True),
            "epochs": Int(1, 10),
            "alpha": Float(1e-3, 1.0, log=True),
            "gamma": Float(0.5, 1.0),
            "temperature": Choice((1.0, 2.0, 4.0)),
            "max_epochs": Int(1, 5),
            "order": Choice(("max_first", "min_first")),
        }


def constant(lr: float) -> Callable[[int], float]:
    """A schedule that never changes."""
    return lambda step: lr


def distillation(target: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """τ² times the batch mean of KL(softmax(target/τ) ‖ softmax(logits/τ)), in nats; both are logits (n, C)."""
    p, q = (functional.log_softmax(z / temperature, 1) for z in (target, logits))
    return temperature**2 * functional.kl_div(q, p, reduction="batchmean", log_target=True)
