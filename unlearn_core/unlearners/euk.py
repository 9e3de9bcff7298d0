"""Retraining of the last k blocks from scratch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from unlearn_core.models.initialise import initialise
from unlearn_core.registry import UNLEARNERS
from unlearn_core.seeding import derive
from unlearn_core.structure.blocks import last_blocks
from unlearn_core.types import Task, Update
from unlearn_core.unlearners.cfk import CFk


@UNLEARNERS.register("euk")
@dataclass(frozen=True, kw_only=True)
class EUk(CFk):
    """Exact-unlearn the last k: re-initialises the last k blocks and trains them on the retain set.

    Everything in those blocks is reset, BatchNorm statistics included; the rest stays frozen as in CFk. With k beyond
    the number of blocks and the recipe's settings this is retraining bit for bit (same streams).

    Source: Goel, Prabhu, Sanyal, Lim, Torr, Kumaraguru, 2022, arXiv:2201.06640.
    """

    needs: ClassVar[tuple[str, ...]] = ("retain", "retain_labels", "initialisation")

    lr: float = 0.05

    def updates(self, task: Task) -> Iterator[Update]:
        _, last = last_blocks(task.model, task.retain.inputs[:1], self.k)
        names = [name for block in last for name in (*block.parameters, *block.modules)]
        initialise(task.model, derive(task.rng.seed, "init"), names)
        return self.tune_last_blocks(task, label="train")
