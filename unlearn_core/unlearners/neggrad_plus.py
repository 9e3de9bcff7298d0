"""Joint descent on the retain set and ascent on the forget set."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unlearn_core import checks
from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Choice, Float, Int, Range
from unlearn_core.training import batches, descend, evaluating
from unlearn_core.types import Task, Update
from unlearn_core.unlearners.settings import LoopSettings, cross_entropy, loop_space

Batch = tuple[Tensor, Tensor]


@UNLEARNERS.register("neggrad_plus")
@dataclass(frozen=True, kw_only=True)
class NegGradPlus(LoopSettings):
    """NegGrad+: minimises β L_retain − (1 − β) L_forget, batch means in nats.

    Loops over the retain set and cycles through the forget set, one forget batch every `forget_every` steps. The
    forget batch is run in evaluation mode, so it never moves BatchNorm statistics. β = 1 is GD bit for bit.

    Source: Kurmanji, Triantafillou, Hayes, Triantafillou, NeurIPS 2023, arXiv:2302.09880.
    Deviation: weight decay and momentum follow the settings (the authors' notebook has neither); optional loss cap.
    """

    needs: ClassVar[tuple[str, ...]] = ("forget", "forget_labels", "retain", "retain_labels")

    beta: float = 0.95  # weight of the retain term, in [0, 1]
    forget_batch_size: int = 64
    forget_every: int = 1  # retain steps per forget batch
    forget_loss_cap: float | None = None  # nats; a forget batch above it no longer pushes

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.in_range("beta", self.beta, 0, 1)
        checks.positive(forget_batch_size=self.forget_batch_size, forget_every=self.forget_every)
        if self.forget_loss_cap is not None:
            checks.positive(forget_loss_cap=self.forget_loss_cap)

    def updates(self, task: Task) -> Iterator[Update]:
        self.set_mode(task.model)

        def loss(pair: tuple[Batch, Batch | None]) -> Tensor:
            retain, forget = pair
            value = self.beta * cross_entropy(task.model, retain)
            if forget is None:
                return value
            with evaluating(task.model):
                rise = cross_entropy(task.model, forget)
            if self.forget_loss_cap is not None:
                rise = rise.clamp(max=self.forget_loss_cap)
            return value - (1 - self.beta) * rise

        return descend(
            self._pairs(task),
            loss,
            self.optimizer_for(task.model),
            phase="retain-forget",
            size=lambda pair: (len(pair[0][1]), 0 if pair[1] is None else len(pair[1][1])),
            lr=self.lr_at(len(task.retain)),
        )

    def _pairs(self, task: Task) -> Iterator[tuple[Batch, Batch | None]]:
        augmentation = task.recipe.augmentation
        retain = batches(
            task.retain, self.batch_size, task.rng, "retain", epochs=range(self.epochs), augmentation=augmentation
        )
        forget = batches(
            task.forget,
            self.forget_batch_size,
            task.rng,
            "forget",
            epochs=itertools.count(),
            augmentation=augmentation,
        )
        for step, batch in enumerate(retain):
            wanted = self.beta < 1 and step % self.forget_every == 0
            yield batch, next(forget, None) if wanted else None

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        space = loop_space(lr=Float(1e-3, 0.3, log=True), epochs=Int(1, 10))
        return space | {"beta": Float(0.7, 0.9999), "forget_every": Choice((1, 4, 16))}
