"""Dampening of the outputs' most important parameters, by a threshold that is lowered until the poison has gone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unlearn_core import checks
from unlearn_core.gradients.fisher import Sums
from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Choice, Float, Range
from unlearn_core.training import predict
from unlearn_core.training.trainable import trainable
from unlearn_core.types import Examples, Task, Update
from unlearn_core.unlearners.importance import norms
from unlearn_core.unlearners.lfssd import LFSSD

TRIES = 500


@UNLEARNERS.register("potion")
@dataclass(frozen=True, kw_only=True)
class Potion:
    """Potion: dampens ever more parameters until the forget set's labels are no longer predicted.

    Importance (XLF): F_S = mean over S of |∇ ‖z(x)‖| with z(x) the logits, in evaluation mode, for the forget set and
    for all data D. The ratios R = F_forget / F_D are pooled over all parameters; those that are no number (0/0: dead
    paths) are dropped and never selected. Search (PTN): from s = `first` · n_forget / n, growing by `growth`, each try
    starts from the corrupted θ0 and sets θ = θ0 min(1 / R, 1) where R is among the largest ln(1 + 100 s) % of the pool,
    until accuracy on the forget set with its poison labels is at most `rho` times that of θ0, or every R > 1 is
    selected (later tries would be the same), or for 500 tries. Forward passes that decide are charged. A run that is
    stopped leaves its last try, or θ0 if there was none; so does a search without success. If θ0 predicts no label of
    the forget set, there is nothing to go by and θ0 stays.

    Source: Schoepf, Foster, Brintrup, DMLR 2024, arXiv:2406.09173. Deviations: true per-sample gradients by default
    (the authors take |mean gradient| of a batch, which `batch` restores); the percentile is not interpolated between
    ratios; the default of `rho` is ours (the authors vary it from 0 to 0.75).
    """

    needs: ClassVar[tuple[str, ...]] = ("forget", "forget_labels", "retain")
    anytime: ClassVar[bool] = True

    rho: float = 0.2  # share of θ0's accuracy on the forget set that may be left
    first: float = 0.04  # s of the first try, in units of n_forget / n
    growth: float = 1.1  # factor of s from try to try
    retain_share: float = 1.0  # share of the retain rows used to estimate F_D; < 1 fits small budgets
    batch: int = 1  # rows whose mean gradient is taken
    chunk: int = 128  # rows per update, fewer where memory is short (row_gradients.rows_within)

    def __post_init__(self) -> None:
        checks.in_range("rho", self.rho, 0, 1)
        checks.positive(first=self.first, batch=self.batch, chunk=self.chunk)
        checks.in_range("growth", self.growth, 1.001, 10)
        checks.in_range("retain_share", self.retain_share, 1e-6, 1)

    def updates(self, task: Task) -> Iterator[Update]:
        source = XLF(retain_share=self.retain_share, fisher_batch=self.batch, chunk=self.chunk)
        forget_mean, data_mean = yield from source.importances(task)
        ratios = {name: forget_mean[name] / data_mean[name] for name in forget_mean}
        yield Update("probe", len(task.forget))
        accuracy = predicted(task.model, task.forget)
        if accuracy > 0:
            yield from self._search(task, ratios, goal=self.rho * accuracy)

    def _search(self, task: Task, ratios: Sums, *, goal: float) -> Iterator[Update]:
        """Tries until accuracy on the forget set is at most `goal`; the model is that of the last try."""
        start = {name: parameter.detach().clone() for name, parameter in trainable(task.model).items()}
        ranked = ranking(ratios)
        s = self.first * len(task.forget) / (len(task.forget) + len(task.retain))
        for _ in range(TRIES):
            yield Update("try", len(task.forget))
            least = threshold(ranked, s)
            dampen_largest(task.model, start, ratios, threshold=least)
            if predicted(task.model, task.forget) <= goal or least <= 1:
                return
            s *= self.growth

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return {
            "rho": Float(0.02, 0.5),
            "first": Float(0.004, 4.0, log=True),
            "growth": Choice((1.05, 1.1, 1.25)),
            "retain_share": Choice((0.25, 0.5, 1.0)),
        }


class XLF(LFSSD):
    """LFSSD's importances of the norm itself, not squared."""

    @staticmethod
    def output(logits: Tensor) -> Tensor:
        return norms(logits)


def predicted(model: nn.Module, examples: Examples) -> float:
    """Share of the rows whose label the model predicts, in evaluation mode; of no rows, none."""
    if not len(examples):
        return 0.0
    return float((predict(model, examples.inputs).argmax(1) == examples.targets).float().mean())


def ranking(ratios: Sums) -> Tensor:
    """(P',) finite ratios of all parameters, the largest first.

    Sorted once: a search of many tries would otherwise select from all of them each time.
    """
    pooled = torch.cat([r.flatten() for r in ratios.values()])
    return pooled[pooled.isfinite()].sort(descending=True).values


def threshold(ranked: Tensor, s: float) -> float:
    """The ratio above which at most ln(1 + 100 s) % of all `ranked` lie: fewer only where equal ones are cut."""
    count = math.floor(min(1.0, math.log1p(100 * s) / 100) * len(ranked))
    return float(ranked[count]) if count < len(ranked) else -math.inf


@torch.no_grad()
def dampen_largest(model: nn.Module, start: Sums, ratios: Sums, *, threshold: float) -> None:
    """θ = start · min(1 / ratio, 1) where the ratio exceeds `threshold`, else start; in place.

    A ratio that is infinite or no number leaves the parameter as it was at the start.
    """
    for name, parameter in trainable(model).items():
        ratio = ratios[name]
        selected = (ratio > threshold) & ratio.isfinite()
        parameter.copy_(torch.where(selected, start[name] / ratio.clamp(min=1.0), start[name]))
