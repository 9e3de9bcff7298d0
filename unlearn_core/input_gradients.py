"""Gradients of the loss with respect to inputs, for all rows in one pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearn_core.checks import InputError
from unlearn_core.training import evaluating


def input_gradients(model: nn.Module, inputs: Tensor, targets: Tensor, *, chunk: int = 1024) -> Tensor:
    """∂ loss_n / ∂ x_n for every row, (n, *shape) float32.

    The gradient of the *sum* of losses is the stack of per-row gradients because rows do not mix in evaluation mode
    (in training mode BatchNorm couples them). Full float32, also on GPUs that would round to TF32.
    Raises InputError for token ids, which have no gradient.
    """
    if not inputs.is_floating_point():
        raise InputError("input gradients need inputs that can change little by little, but these are token ids")
    parts = []
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with evaluating(model), exact, torch.enable_grad():
        for x, y in zip(inputs.split(chunk), targets.split(chunk), strict=True):
            leaf = x.detach().clone().requires_grad_()
            loss = functional.cross_entropy(model(leaf), y, reduction="sum")
            parts.append(torch.autograd.grad(loss, leaf)[0])
    return torch.cat(parts)


def noise_alignment(gradients: Tensor, noise: Tensor, epsilon: float) -> Tensor:
    """S = −⟨g, ξ⟩ / (ε ‖g‖) in float64; rows of `gradients` (m, *shape) against `noise` (..., m, *shape).

    Rows with a vanished gradient come out as NaN.
    """
    g = gradients.flatten(1).double()
    unit = g / g.norm(dim=1, keepdim=True).where(g.norm(dim=1, keepdim=True) > 1e-30, torch.nan)
    return -torch.einsum("md,...md->...m", unit, noise.flatten(-gradients.dim() + 1).double()) / epsilon
