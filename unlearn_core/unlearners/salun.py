"""Random labels on the weights that matter most to the forget set."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unlearn_core import checks
from unlearn_core.fisher import summed_cross_entropy
from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Float, Range
from unlearn_core.training import evaluating, split_rows
from unlearn_core.types import Examples, Task, Update
from unlearn_core.unlearners.random_labels import RandomLabels


@UNLEARNERS.register("salun")
@dataclass(frozen=True, kw_only=True)
class SalUn(RandomLabels):
    """SalUn: random labels, but only the weights of largest |Σ_forget ∇ℓ(θ0)| are trained.

    The mask M holds the ⌊share · P⌋ largest of all P parameters pooled (ties by position), from one pass over the
    forget set in evaluation mode; θ = M ⊙ θ_trained + (1 − M) ⊙ θ0 after every step, so neither weight decay nor
    momentum moves a masked weight. BatchNorm statistics are no parameters and follow `bn`. share = 1 is random labels
    bit for bit.
    Source: Fan, Liu, Zhang, Wong, Wei, Liu, ICLR 2024, arXiv:2310.12508. Deviations: the sum over rows, where the
    authors add batch means (the same for equal batches); the variant with a soft mask (a proximal step) is left out.
    """

    share: float = 0.5  # of the parameters, that is trained

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.in_range("share", self.share, 0, 1)

    def updates(self, task: Task) -> Iterator[Update]:
        gradients = yield from gradient_sums(task.model, task.forget, chunk=self.batch_size, phase="saliency")
        masks = largest([g.abs() for g in gradients], self.share)
        optimizer = self.optimizer_for(task.model)
        keep_masked(optimizer, list(task.model.parameters()), masks)
        yield from self.tune(task, optimizer)

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return super().search_space() | {"lr": Float(1e-3, 0.1, log=True), "share": Float(0.05, 1.0)}


def gradient_sums(
    model: nn.Module, examples: Examples, *, chunk: int, phase: str
) -> Generator[Update, None, list[Tensor]]:
    """Σ ∇ℓ over the rows, per parameter, in evaluation mode and float32; announced `chunk` rows at a time."""
    parameters = list(model.parameters())
    totals = [torch.zeros_like(p) for p in parameters]
    device = examples.targets.device
    for rows in split_rows(torch.arange(len(examples), device=device), chunk) if len(examples) else ():
        yield Update(phase, len(rows))
        with evaluating(model), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            loss = summed_cross_entropy(model(examples.inputs[rows]), examples.targets[rows])
        for total, gradient in zip(totals, torch.autograd.grad(loss, parameters), strict=True):
            total += gradient
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
