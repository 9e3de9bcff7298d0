"""Control: BatchNorm statistics of the retain set, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from unlearn_core import checks
from unlearn_core.checks import InputError
from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Range
from unlearn_core.training import batches, rows_of
from unlearn_core.training.trainable import frozen_modules
from unlearn_core.types import Task, Update


@UNLEARNERS.register("bn_refresh")
@dataclass(frozen=True, kw_only=True)
class BNRefresh:
    """BN refresh: re-estimates BatchNorm statistics in one pass over the retain set; changes no weight.

    A control: it shows what of another method's effect comes from the statistics alone. They are the means over
    batches, weighted by rows, of the batch means and variances, in place of the corrupted ones from the first batch on;
    a run that is stopped early has the statistics of the rows read so far. Forward passes only, with the recipe's
    augmentation. Models without BatchNorm, or with frozen layers of it alone, are refused.

    Source: none; the usual re-estimation, as after the averaging of weights (Izmailov et al., 2018, arXiv:1803.05407).
    """

    needs: ClassVar[tuple[str, ...]] = ("retain",)
    anytime: ClassVar[bool] = True

    batch_size: int = 128  # rows per update

    def __post_init__(self) -> None:
        checks.positive(batch_size=self.batch_size)

    def updates(self, task: Task) -> Iterator[Update]:
        norms = batch_norms(task.model)
        if not norms:
            raise InputError("bn_refresh needs a model with BatchNorm statistics, but this one has none")
        stream = batches(
            task.retain, self.batch_size, task.rng, "retain", epochs=[0], augmentation=task.recipe.augmentation
        )
        read = 0
        for batch in stream:
            yield Update("refresh", rows_of(batch))
            read += rows_of(batch)
            with torch.no_grad(), gathering(task.model, norms, momentum=rows_of(batch) / read):
                task.model(batch[0])

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return {}


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The layers that keep running statistics and are not frozen."""
    held = frozen_modules(model)
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None and m not in held]


@contextmanager
def gathering(model: nn.Module, norms: Sequence[_BatchNorm], *, momentum: float) -> Iterator[None]:
    """`norms` in training mode with this momentum, the rest of the model in evaluation mode; all undone afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.training, norm.momentum = True, momentum
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for norm, old in zip(norms, momenta, strict=True):
            norm.momentum = old
