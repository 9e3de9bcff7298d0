"""Fisher-based dampening of the parameters that matter most to the forget set."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unlearn_core import checks
from unlearn_core.gradients.fisher import squared_batch_gradient, squared_gradient_sums
from unlearn_core.gradients.row_gradients import Sums, rows_within
from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Choice, Float, Range
from unlearn_core.training import split_rows
from unlearn_core.training.trainable import trainable
from unlearn_core.types import Examples, Task, Update


@UNLEARNERS.register("ssd")
@dataclass(frozen=True, kw_only=True)
class SSD:
    """Selective synaptic dampening: shrinks parameters that are far more important to the forget set than to all data.

    With F_S the mean squared per-sample gradient over S: where F_forget > α F_D, θ ← θ min(λ F_D / F_forget, 1), with
    λ = ratio · α. No training; model in evaluation mode. A ratio above 1 would be redundant: what lies between α and λ
    keeps its value, so it is the method with threshold λ and ratio 1. With D all data and per-sample gradients,
    F_forget ≤ (n / n_forget) F_D, so α ≥ n / n_forget changes nothing: that bound is the method's.
    F_D is put together from the retain and forget sums, so no row is read twice (the authors read forget rows twice).

    Source: Foster, Schoepf, Brintrup, AAAI 2024, arXiv:2308.07707. Deviations: true per-sample gradients by default;
    the authors square the mean gradient of a batch, which `fisher_batch` restores (their 128, say). They set λ itself;
    their default λ = 1 at α = 10 is the ratio 0.1.
    """

    needs: ClassVar[tuple[str, ...]] = ("forget", "forget_labels", "retain", "retain_labels")
    anytime: ClassVar[bool] = True

    alpha: float = 10.0  # selection threshold
    ratio: float = 0.1  # λ / α, at most 1
    data: str = "all"  # D: all rows, or retain rows only
    retain_share: float = 1.0  # share of the retain rows used to estimate F_D; < 1 fits small budgets
    fisher_batch: int = 1  # rows whose mean gradient is squared
    chunk: int = 128  # rows per update, fewer where memory is short (row_gradients.rows_within)

    def __post_init__(self) -> None:
        checks.positive(alpha=self.alpha, ratio=self.ratio, fisher_batch=self.fisher_batch, chunk=self.chunk)
        checks.in_range("ratio", self.ratio, 0, 1)
        checks.in_range("retain_share", self.retain_share, 1e-6, 1)
        checks.one_of("data", self.data, ("all", "retain"))

    def updates(self, task: Task) -> Iterator[Update]:
        forget_mean, data_mean = yield from self.importances(task)
        yield Update("dampen", 0)
        dampen(task.model, forget_mean, data_mean, alpha=self.alpha, dampening=self.ratio * self.alpha)

    def importances(self, task: Task) -> Generator[Update, None, tuple[Sums, Sums]]:
        """F_forget and F_D by parameter name; announced chunk by chunk."""
        retain = task.retain.rows(self._sample(task))
        forget_mean = yield from self._fisher(task, task.forget)
        data_mean = yield from self._fisher(task, retain)
        if self.data == "all":
            share = len(task.forget) / (len(task.forget) + len(task.retain))
            data_mean = {k: share * forget_mean[k] + (1 - share) * data_mean[k] for k in data_mean}
        return forget_mean, data_mean

    def _sample(self, task: Task) -> Tensor:
        wanted = max(1, round(self.retain_share * len(task.retain)))
        order = torch.randperm(len(task.retain), generator=task.rng("sample"), device=task.retain.targets.device)
        return order[:wanted]

    def _fisher(self, task: Task, examples: Examples) -> Generator[Update, None, Sums]:
        """Mean of squared gradients over `examples`; announced chunk by chunk. Returns the means by parameter name."""
        size = self.fisher_batch
        if size == 1:
            size = rows_within(task.model, examples.inputs, self.chunk)
        parts = split_rows(torch.arange(len(examples), device=examples.targets.device), size)
        totals: Sums = {}
        for rows in parts:
            yield Update("fisher", len(rows))
            with torch.autocast(examples.inputs.device.type, enabled=False):
                part = self._squares(task.model, examples.rows(rows))
            totals = {k: totals[k] + v if totals else v for k, v in part.items()}
        count = len(examples) if self.fisher_batch == 1 else len(parts)
        return {k: v / count for k, v in totals.items()}

    def _squares(self, model: nn.Module, chunk: Examples) -> Sums:
        squares = squared_gradient_sums if self.fisher_batch == 1 else squared_batch_gradient
        return squares(model, chunk.inputs, chunk.targets)

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return {
            "alpha": Float(0.1, 1e4, log=True),
            "ratio": Float(0.01, 1.0, log=True),
            "data": Choice(("all", "retain")),
            "retain_share": Choice((0.25, 0.5, 1.0)),
        }


@torch.no_grad()
def dampen(model: nn.Module, forget: Sums, data: Sums, *, alpha: float, dampening: float) -> None:
    """θ ← θ min(dampening · data / forget, 1) where forget > alpha · data; in place."""
    for name, parameter in trainable(model).items():
        selected = forget[name] > alpha * data[name]
        factor = (dampening * data[name] / forget[name]).clamp(max=1.0)
        parameter.mul_(torch.where(selected, factor, 1.0))
