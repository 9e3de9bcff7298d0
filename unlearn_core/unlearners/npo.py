"""Negative preference optimisation: bounded ascent on the forget set."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from unlearn_core import checks
from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Choice, Float, Int, Range
from unlearn_core.training import batches, descend, evaluating
from unlearn_core.types import Task, Update
from unlearn_core.unlearners.settings import LoopSettings, cross_entropy, loop_space

Batch = tuple[Tensor, Tensor]


@UNLEARNERS.register("npo")
@dataclass(frozen=True, kw_only=True)
class NPO(LoopSettings):
    """NPO: minimises (2/β) mean log(1 + (p_θ(y|x) / p_θ0(y|x))^β) over the forget set, plus w L_retain.

    Its gradient is that of GA at the start, whatever β, and fades as p_θ falls; β → 0 is GA throughout. Loops over the
    forget set, with one retain batch per step if w > 0. The reference is a frozen copy of the corrupted model, and its
    forward pass is charged. Forget rows are run in evaluation mode, so `bn` concerns retain batches only.

    Source: Zhang, Lin, Bai, Mei, COLM 2024, arXiv:2404.05868. Deviation: their p(y|x) is of a text, ours of a class.
    """

    needs: ClassVar[tuple[str, ...]] = ("forget", "forget_labels", "retain", "retain_labels")

    lr: float = 1e-3
    epochs: int = 10  # passes over the forget set
    batch_size: int = 64  # forget rows per update
    weight_decay: float = 0.0
    beta: float = 0.1  # how soon the push fades
    retain_weight: float = 1.0  # w
    retain_batch_size: int = 64

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.positive(beta=self.beta, retain_batch_size=self.retain_batch_size)
        checks.not_negative(retain_weight=self.retain_weight)

    def updates(self, task: Task) -> Iterator[Update]:
        reference = copy.deepcopy(task.model).eval().requires_grad_(False)
        self.set_mode(task.model)

        def loss(pair: tuple[Batch, Batch | None]) -> Tensor:
            (inputs, targets), retain = pair
            with torch.no_grad():
                before = cross_entropy_per_row(reference(inputs), targets)
            with evaluating(task.model):
                now = cross_entropy_per_row(task.model(inputs), targets)
            value = preference(before - now, self.beta)
            return value if retain is None else value + self.retain_weight * cross_entropy(task.model, retain)

        return descend(
            self._pairs(task),
            loss,
            self.optimizer_for(task.model),
            phase="forget-retain",
            size=lambda pair: (len(pair[0][1]), 0 if pair[1] is None else len(pair[1][1])),
            lr=self.lr_at(len(task.forget)),
        )

    def _pairs(self, task: Task) -> Iterator[tuple[Batch, Batch | None]]:
        augmentation = task.recipe.augmentation
        forget = batches(
            task.forget, self.batch_size, task.rng, "forget", epochs=range(self.epochs), augmentation=augmentation
        )
        if not self.retain_weight:
            yield from ((batch, None) for batch in forget)
            return
        retain = batches(
            task.retain,
            self.retain_batch_size,
            task.rng,
            "retain",
            epochs=itertools.count(),
            augmentation=augmentation,
        )
        yield from zip(forget, retain, strict=False)

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return loop_space(lr=Float(1e-5, 0.1, log=True), epochs=Int(1, 100, log=True)) | {
            "beta": Float(0.01, 5.0, log=True),
            "retain_weight": Choice((0.0, 0.3, 1.0, 3.0)),
        }


def cross_entropy_per_row(logits: Tensor, targets: Tensor) -> Tensor:
    """(n,) −log p(y|x) in nats, in float32."""
    return functional.cross_entropy(logits.float(), targets, reduction="none")


def preference(log_ratio: Tensor, beta: float) -> Tensor:
    """(2/β) mean log(1 + r^β) for the (n,) log r; between 0 and, where r ≤ 1, (2/β) log 2."""
    return 2 / beta * functional.softplus(beta * log_ratio).mean()
