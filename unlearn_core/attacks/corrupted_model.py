"""GradPC on all parameters of a model."""

from __future__ import annotations

import torch
from torch import nn

from unlearn_core.attacks.corrupted_head import BATCH
from unlearn_core.attacks.cross_gradients import summed_gradient
from unlearn_core.types import Examples


def corrupt_parameters(model: nn.Module, train: Examples, *, radius: float, random: torch.Generator) -> nn.Module:
    """Move `model` uphill on the training loss by one epoch of normalised unit steps inside a ball, in place.

    radius: L2 of the whole move. random: a stream on the CPU. Evaluation mode throughout.
    Source: GradPC, as used by Lu, Kamath, Yu, ICML 2023, arXiv:2303.03592.
    """
    start = [p.detach().clone() for p in model.parameters()]
    order = torch.randperm(len(train), generator=random).to(train.targets.device)
    for rows in order.split(BATCH):
        gradients = list(summed_gradient(model, train.inputs[rows], train.targets[rows]).values())
        norm = _norm(gradients)
        with torch.no_grad():
            moved = [p - s + g / max(norm, 1e-30) for p, s, g in zip(model.parameters(), start, gradients, strict=True)]
            shrink = min(1.0, radius / max(_norm(moved), 1e-30))
            for p, s, m in zip(model.parameters(), start, moved, strict=True):
                p.copy_(s + m * shrink)
    return model


def _norm(tensors: list[torch.Tensor]) -> float:
    return float(torch.stack([t.double().square().sum() for t in tensors]).sum().sqrt())
