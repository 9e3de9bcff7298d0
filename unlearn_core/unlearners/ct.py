"""Convolution kernels transposed, then repaired on the retain set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from unlearn_core.checks import InputError
from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Float, Int, Range
from unlearn_core.training.trainable import trainable
from unlearn_core.types import Task, Update
from unlearn_core.unlearners.settings import LoopSettings, loop_space


@UNLEARNERS.register("ct")
@dataclass(frozen=True, kw_only=True)
class CT(LoopSettings):
    """Convolution transpose: swaps the two spatial axes of every convolution kernel, then fine-tunes on the retain set.

    Kernels of 1x1 are left as they are. Never reads the forget set. Models without convolutions, where it would be GD
    under another name, and kernels that are not square are refused.

    Source: fifth of the NeurIPS 2023 unlearning competition, as described by Cadet et al., 2024, arXiv:2410.01276.
    Deviation: optimiser settings are ours where the description gives none.
    """

    needs: ClassVar[tuple[str, ...]] = ("retain", "retain_labels")

    lr: float = 1e-3
    epochs: int = 3
    schedule: str = "cosine"

    def updates(self, task: Task) -> Iterator[Update]:
        convolutions = square_convolutions(task.model)
        yield Update("transpose", 0)
        transpose(convolutions)
        yield from self.fine_tune(task)

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return loop_space(lr=Float(1e-4, 0.3, log=True), epochs=Int(1, 10))


def square_convolutions(model: nn.Module) -> list[nn.Conv2d]:
    """All two-dimensional convolutions that are not frozen.

    Raises:
        InputError: If there is none, or if the kernel of one is not square.
    """
    free = {id(parameter) for parameter in trainable(model).values()}
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d) and id(m.weight) in free]
    if not convolutions:
        raise InputError("ct needs a model with convolutions, but this one has none; there it would be gd")
    for convolution in convolutions:
        height, width = convolution.kernel_size
        if height != width:
            raise InputError(f"ct needs square convolution kernels, but this model has one of {height}x{width}")
    return convolutions


@torch.no_grad()
def transpose(convolutions: list[nn.Conv2d]) -> None:
    """Swap height and width of every kernel, in place."""
    for convolution in convolutions:
        convolution.weight.copy_(convolution.weight.transpose(2, 3).clone())
