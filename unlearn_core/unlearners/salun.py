"""Random labels on the weights that matter most to the forget set."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unlearn_core import checks
from unlearn_core.gradients.fisher import summed_cross_entropy
from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Choice, Float, Range
from unlearn_core.training import evaluating, split_rows, steps_per_epoch
from unlearn_core.training.trainable import gradients, trainable
from unlearn_core.types import Examples, Task, Update
from unlearn_core.unlearners.random_labels import RandomLabels, sample


@UNLEARNERS.register("salun")
@dataclass(frozen=True, kw_only=True)
class SalUn(RandomLabels):
    """SalUn: random labels, but only part of the weights may leave θ0.

    `hard`: those of largest |Σ_forget ∇ℓ(θ0)|. The mask M holds the ⌊share · P⌋ largest of all P parameters pooled
    (ties by position), from one pass over the forget set in evaluation mode; θ = M ⊙ θ_trained + (1 − M) ⊙ θ0 after
    every step, so neither weight decay nor momentum moves a masked weight.
    `soft`: those that training moves furthest. Each step t = 1 .. T is followed by the proximal step of τ ‖θ − θ0‖₁,
    θ ← θ0 + sign(θ − θ0) max(|θ − θ0| − τ, 0), where τ is the k-th smallest |θ − θ0| with
    k = ⌊(1 − share) (1 − t/T) P⌋: so at least k weights are θ0 exactly, and ever fewer. T is the method's own number of
    steps, so a run stopped early keeps more of θ0. No pass over the forget set precedes it.
    BatchNorm statistics are no parameters and follow `bn`. share = 1 is random labels bit for bit, with either mask.

    Source: Fan, Liu, Zhang, Wong, Wei, Liu, ICLR 2024, arXiv:2310.12508. Deviations: `hard` sums over rows, where the
    authors add batch means (the same for equal batches). `soft` anneals with every step and keeps θ0 as its anchor,
    where their code anneals by epochs and starts each from the weights that the last one left; labels are redrawn and
    sets are mixed as in random labels.
    """

    needs: ClassVar[tuple[str, ...]] = ("forget", "forget_labels", "retain", "retain_labels")

    share: float = 0.5  # share of the parameters that may leave θ0 (`soft`: at the start)
    mask: str = "hard"

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.in_range("share", self.share, 0, 1)
        checks.one_of("mask", self.mask, ("hard", "soft"))

    def updates(self, task: Task) -> Iterator[Update]:
        optimizer, parameters = self.optimizer_for(task.model), list(trainable(task.model).values())
        if self.mask == "soft":
            keep_nearest(optimizer, parameters, self._kept(task, sum(p.numel() for p in parameters)))
        else:
            sums = yield from gradient_sums(task.model, task.forget, chunk=self.batch_size, phase="saliency")
            keep_masked(optimizer, parameters, largest([g.abs() for g in sums.values()], self.share))
        yield from self.tune(task, optimizer)

    def _kept(self, task: Task, size: int) -> Iterator[int]:
        """How many of `size` parameters the soft mask keeps at θ0, step by step."""
        retain = sample(task.retain, self.retain_share, task.rng("sample"))
        passes = self._passes(retain, task.forget).values()
        steps = self.epochs * sum(steps_per_epoch(len(part), self.batch_size) for part in passes)
        return (math.floor((1 - self.share) * (1 - step / steps) * size) for step in range(1, steps + 1))

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return super().search_space() | {
            "lr": Float(1e-3, 0.1, log=True),
            "share": Float(0.05, 1.0),
            "mask": Choice(("hard", "soft")),
        }


def gradient_sums(
    model: nn.Module, examples: Examples, *, chunk: int, phase: str
) -> Generator[Update, None, dict[str, Tensor]]:
    """Σ ∇ℓ over the rows by name of the parameters that are not frozen, in evaluation mode and float32.

    Yields:
        An update for each `chunk` rows.
    """
    parameters = trainable(model)
    totals = {name: torch.zeros_like(p) for name, p in parameters.items()}
    device = examples.targets.device
    for rows in split_rows(torch.arange(len(examples), device=device), chunk) if len(examples) else ():
        yield Update(phase, len(rows))
        with evaluating(model), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            loss = summed_cross_entropy(model(examples.inputs[rows]), examples.targets[rows])
        for name, gradient in gradients(loss, parameters).items():
            totals[name] += gradient
    return totals


def largest(values: list[Tensor], share: float) -> list[Tensor]:
    """Masks of the ⌊share · P⌋ largest of all P values; of equal ones the first."""
    pooled = torch.cat([v.flatten() for v in values])
    order = pooled.sort(descending=True, stable=True).indices[: math.floor(share * len(pooled))]
    chosen = torch.zeros_like(pooled, dtype=torch.bool)
    chosen[order] = True
    parts = chosen.split([v.numel() for v in values])
    return [part.view(v.shape) for part, v in zip(parts, values, strict=True)]


def keep_masked(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], masks: list[Tensor]) -> None:
    """Make `optimizer` leave every coordinate outside its mask bit for bit as it is now.

    Restoring after each step is enough: optimisers work coordinate by coordinate, so what momentum gathers for a
    masked one reaches no other.
    """
    kept = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def restore(*_: object) -> None:
        for parameter, mask, value in zip(parameters, masks, kept, strict=True):
            parameter.copy_(torch.where(mask, parameter, value))

    optimizer.register_step_post_hook(restore)


def keep_nearest(optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], counts: Iterator[int]) -> None:
    """Follow each step of `optimizer` by the proximal step that leaves some coordinates as they are now.

    `counts` gives the number of coordinates for each step; a count of 0 leaves the step as it was.
    """
    start = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def shrink(*_: object) -> None:
        count = next(counts)
        if count:
            moved = [p - s for p, s in zip(parameters, start, strict=True)]
            threshold = torch.cat([m.abs().flatten() for m in moved]).kthvalue(count).values
            for parameter, s, m in zip(parameters, start, moved, strict=True):
                parameter.copy_(s + m.sign() * (m.abs() - threshold).clamp(min=0))

    optimizer.register_step_post_hook(shrink)
