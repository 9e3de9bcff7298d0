"""Noise on the weights that the retain set does not need."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearn_core import checks
from unlearn_core.gradients.fisher import Loss, squared_gradient_sums
from unlearn_core.gradients.row_gradients import Sums, rows_within
from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Choice, Float, Range
from unlearn_core.structure.blocks import blocks
from unlearn_core.training import split_rows
from unlearn_core.training.trainable import trainable
from unlearn_core.types import Task, Update
from unlearn_core.unlearners.random_labels import sample


@UNLEARNERS.register("fisher_forgetting")
@dataclass(frozen=True, kw_only=True)
class FisherForgetting:
    """Fisher forgetting: θ_i ← θ_i + N(0, α / (F_i + ε)), where F is the Fisher information on the retain set.

    F_i = mean over retain rows of Σ_c p_c(x) (∂ℓ(x, c)/∂θ_i)², with gradients of single rows in evaluation mode:
    `expected` sums over all C classes (one forward and C backward passes per row), `sampled` draws one class from p(x)
    per row. Nothing is trained and the forget set is never read: noise goes where the retain set does not mind, the
    poison or not.

    Source: Golatkar, Achille, Soatto, CVPR 2020, arXiv:1911.04933.
    Deviations: their code changes the variance further; `cap`, `row_mean` and `boost` restore that (1e3, true, 10),
    but not its lower cap of 1e2 for tensors with C rows, nor the erased row of a forgotten class.
    """

    needs: ClassVar[tuple[str, ...]] = ("retain",)
    anytime: ClassVar[bool] = True

    alpha: float = 1e-7  # scale of the variance
    epsilon: float = 1e-8
    estimate: str = "sampled"
    retain_share: float = 1.0  # share of the retain rows used to estimate F; < 1 fits small budgets
    cap: float | None = 1e3  # largest 1 / (F + ε)
    row_mean: bool = False  # one variance per output unit and position: the mean over the inputs of a weight
    boost: float = 1.0  # factor on the variance of the head and of all biases, scales and shifts
    chunk: int = 128  # rows per update, fewer where memory is short (row_gradients.rows_within)

    def __post_init__(self) -> None:
        checks.not_negative(alpha=self.alpha)
        checks.positive(epsilon=self.epsilon, boost=self.boost, chunk=self.chunk)
        checks.one_of("estimate", self.estimate, ("expected", "sampled"))
        checks.in_range("retain_share", self.retain_share, 1e-6, 1)
        if self.cap is not None:
            checks.positive(cap=self.cap)

    def updates(self, task: Task) -> Iterator[Update]:
        fisher = yield from self._fisher(task)
        yield Update("noise", 0)
        head, random = blocks(task.model, task.retain.inputs[:1])[-1].parameters, task.rng("noise")
        with torch.no_grad():
            for name, parameter in trainable(task.model).items():
                spread = self.variance(fisher[name], boosted=name in head or parameter.dim() == 1).sqrt()
                noise = torch.randn(parameter.shape, generator=random, device=parameter.device, dtype=parameter.dtype)
                parameter.add_(spread * noise)

    def variance(self, fisher: Tensor, *, boosted: bool = False) -> Tensor:
        """Of the noise on a parameter with this Fisher information."""
        inverse = 1 / (fisher + self.epsilon)
        if self.cap is not None:
            inverse = inverse.clamp(max=self.cap)
        if self.row_mean and inverse.dim() > 1:
            inverse = inverse.mean(1, keepdim=True).expand_as(inverse)
        return self.alpha * (self.boost if boosted else 1.0) * inverse

    def _fisher(self, task: Task) -> Generator[Update, None, Sums]:
        """Mean over retain rows, by parameter name; announced chunk by chunk."""
        retain = sample(task.retain, self.retain_share, task.rng("sample"), least=1)
        loss = expected_losses if self.estimate == "expected" else SampledLoss(task.rng("labels"))
        totals: Sums = {}
        size = rows_within(task.model, retain.inputs, self.chunk)
        for rows in split_rows(torch.arange(len(retain), device=retain.targets.device), size):
            yield Update("fisher", len(rows))
            part = squares(task.model, retain.inputs[rows], retain.targets[rows], loss)
            totals = {k: totals[k] + v if totals else v for k, v in part.items()}
        return {k: v / len(retain) for k, v in totals.items()}

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return {
            "alpha": Float(1e-9, 1e-4, log=True),
            "estimate": Choice(("sampled", "expected")),
            "retain_share": Choice((0.02, 0.1, 1.0)),
        }


def expected_losses(logits: Tensor, targets: Tensor) -> Tensor:
    """(C,) sums over rows of √p_c(x) ℓ(x, c), p held constant: the squared row gradients of all classes make up F."""
    log_p = functional.log_softmax(logits.float(), 1)
    return -(log_p.detach().exp().sqrt() * log_p).sum(0)


@dataclass(frozen=True)
class SampledLoss:
    """Σ over rows of ℓ(x, c) with c ~ p(x)."""

    random: torch.Generator

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        logits = logits.float()
        uniform = torch.rand(logits.shape, generator=self.random, device=logits.device)
        labels = (logits.detach() - (-uniform.log()).log()).argmax(1)  # the Gumbel-max trick
        return functional.cross_entropy(logits, labels, reduction="sum")


def squares(model: nn.Module, inputs: Tensor, targets: Tensor, loss: Loss) -> Sums:
    """Sums of squared per-row gradients, in full precision."""
    with torch.autocast(inputs.device.type, enabled=False):
        return squared_gradient_sums(model, inputs, targets, loss)
