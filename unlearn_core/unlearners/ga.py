"""Gradient ascent on the forget set."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unlearn_core import checks
from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Choice, Float, Int, Range
from unlearn_core.types import Task, Update
from unlearn_core.unlearners.settings import LoopSettings, loop_space


@UNLEARNERS.register("ga")
@dataclass(frozen=True, kw_only=True)
class GA(LoopSettings):
    """Gradient ascent (NegGrad): raises the loss of the forget set, never reads the retain set.

    θ ← θ + η ∇L_forget(θ); weight decay still shrinks θ. Epochs count passes over the forget set. BatchNorm is frozen
    by default: a batch of poisons alone would overwrite the running statistics.

    Source: Golatkar, Achille, Soatto, CVPR 2020, arXiv:1911.04933; Thudi et al., EuroS&P 2022, arXiv:2109.13398.
    """

    needs: ClassVar[tuple[str, ...]] = ("forget", "forget_labels")

    lr: float = 1e-3
    epochs: int = 5
    batch_size: int = 64
    momentum: float = 0.0
    weight_decay: float = 0.0
    bn: str = "frozen"
    clip: float | None = None  # largest gradient norm of a step
    loss_cap: float | None = None  # batches above this loss, in units of log(classes), no longer push

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clip is not None:
            checks.positive(clip=self.clip)
        if self.loss_cap is not None:
            checks.positive(loss_cap=self.loss_cap)

    def updates(self, task: Task) -> Iterator[Update]:
        self.set_mode(task.model)
        optimizer = self.optimizer_for(task.model)
        if self.clip is not None:
            optimizer.register_step_pre_hook(clipper(task.model, self.clip))

        def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
            inputs, targets = batch
            logits = task.model(inputs).float()
            value = torch.nn.functional.cross_entropy(logits, targets)
            return -(value if self.loss_cap is None else value.clamp(max=self.loss_cap * math.log(logits.shape[1])))

        return self.loop(task, task.forget, loss, optimizer=optimizer, label="forget")

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        space = loop_space(lr=Float(1e-5, 1.0, log=True), epochs=Int(1, 100, log=True))
        return space | {"loss_cap": Choice((None, 1.0))}


def clipper(model: nn.Module, limit: float) -> Callable[..., None]:
    """A hook that scales the gradient of all parameters to a norm of at most `limit`."""

    def clip(*_: object) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), limit)

    return clip
