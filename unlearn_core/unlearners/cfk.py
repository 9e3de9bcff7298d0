"""Fine-tuning of the last k blocks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unlearn_core import checks
from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Float, Int, Range
from unlearn_core.structure.blocks import freeze, last_blocks
from unlearn_core.types import Task, Update
from unlearn_core.unlearners.settings import LoopSettings, cross_entropy, loop_space


@UNLEARNERS.register("cfk")
@dataclass(frozen=True, kw_only=True)
class CFk(LoopSettings):
    """Catastrophically forget the last k: fine-tunes the last k blocks on the retain set, the rest is frozen.

    The frozen part runs in evaluation mode without gradients, so neither its weights nor its BatchNorm statistics
    move and its backward pass is never paid. k beyond the number of blocks is GD bit for bit. What counts as a block of
    a model is said in `unlearn_core.structure.blocks`; blocks that the model itself has frozen do not count.

    Source: Goel, Prabhu, Sanyal, Lim, Torr, Kumaraguru, 2022, arXiv:2201.06640.
    """

    needs: ClassVar[tuple[str, ...]] = ("retain", "retain_labels")

    k: int = 1  # blocks that are trained, the head being the first

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.positive(k=self.k)

    def updates(self, task: Task) -> Iterator[Update]:
        return self.tune_last_blocks(task, label="retain")

    def tune_last_blocks(self, task: Task, *, label: str) -> Iterator[Update]:
        frozen, tuned = last_blocks(task.model, task.retain.inputs[:1], self.k)
        optimizer = self.optimizer_of(task.model.get_parameter(name) for block in tuned for name in block.parameters)
        self.set_mode(task.model)

        def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
            with freeze(task.model, frozen):
                return cross_entropy(task.model, batch)

        return self.loop(task, task.retain, loss, optimizer=optimizer, label=label)

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return loop_space(lr=Float(1e-3, 1.0, log=True), epochs=Int(1, 10)) | {"k": Int(1, 3)}
