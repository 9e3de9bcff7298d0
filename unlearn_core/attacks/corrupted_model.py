"""GradPC on all parameters of a model."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from unlearn_core.attacks.corrupted_head import BATCH
from unlearn_core.attacks.cross_gradients import summed_gradient
from unlearn_core.training.trainable import trainable
from unlearn_core.types import Examples


def corrupt_parameters(model: nn.Module, train: Examples, *, radius: float, random: torch.Generator) -> nn.Module:
    """Move `model` uphill on the training loss by one epoch of normalised unit steps inside a ball, in place.

    The model is in evaluation mode throughout.

    Args:
        model: Changed in place, and returned.
        train: The rows whose loss is raised.
        radius: L2 length of the whole move.
        random: A stream on the CPU; draws the order of the rows.

    Source: GradPC, as used by Lu, Kamath, Yu, ICML 2023, arXiv:2303.03592.
    """
    parameters = trainable(model)
    start = {name: p.detach().clone() for name, p in parameters.items()}
    order = torch.randperm(len(train), generator=random).to(train.targets.device)
    for rows in order.split(BATCH):
        gradient = summed_gradient(model, train.inputs[rows], train.targets[rows])
        norm = _norm(gradient.values())
        with torch.no_grad():
            moved = {k: p - start[k] + gradient[k] / max(norm, 1e-30) for k, p in parameters.items()}
            shrink = min(1.0, radius / max(_norm(moved.values()), 1e-30))
            for name, p in parameters.items():
                p.copy_(start[name] + moved[name] * shrink)
    return model


def _norm(tensors: Iterable[torch.Tensor]) -> float:
    return float(torch.stack([t.double().square().sum() for t in tensors]).sum().sqrt())
