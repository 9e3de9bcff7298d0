"""Importance of parameters for what a model puts out, without labels: sums of absolute gradients of its output norm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from unlearn_core.gradients.fisher import (
    Kind,
    Sums,
    conv_weight_gradients,
    embedding_sums,
    own_gradients,
    per_sample_sums,
)
from unlearn_core.training import evaluating
from unlearn_core.training.trainable import gradients, trainable

Output = Callable[[Tensor], Tensor]
"""A function of (n, C) logits: one number per row."""


def norms(logits: Tensor) -> Tensor:
    """(n,) Euclidean norms, in float32."""
    return torch.linalg.vector_norm(logits.float(), dim=1)


def squared_norms(logits: Tensor) -> Tensor:
    """(n,) squared Euclidean norms, in float32."""
    return logits.float().square().sum(1)


def absolute_gradient_sums(model: nn.Module, inputs: Tensor, output: Output) -> Sums:
    """Σ_n |∂ output(z_n)/∂θ_i| over the rows, by parameter name; z: logits in evaluation mode.

    Each sample's gradient on its own, from the layer inputs and output gradients of one pass where the model allows it,
    as `unlearn_core.gradients.fisher` does it for squares, and with the same limits on the model (NotImplementedError).
    """
    return per_sample_sums(model, inputs, lambda logits: output(logits).sum(), Kind(torch.abs, absolute_sums))


def absolute_sums(module: nn.Module, a: Tensor, g: Tensor) -> Sums:
    """Σ_n |per-sample gradient| of one layer's own parameters, from its input `a` and output gradient `g`."""
    if isinstance(module, nn.Linear) and a.dim() == 2:
        sums = {"weight": g.abs().T @ a.abs()}  # |g aᵀ| = |g| |a|ᵀ
    elif isinstance(module, nn.Linear):
        a, g = a.flatten(1, -2), g.flatten(1, -2).transpose(1, 2)
        sums = {"weight": (g @ a).abs().sum(0)}
    elif isinstance(module, nn.Embedding):
        return {"weight": embedding_sums(module, a, g, torch.abs)}
    elif isinstance(module, nn.Conv2d):
        sums = {"weight": conv_weight_gradients(module, a, g).abs().sum(0)}
    else:
        return {k: v.abs().sum(0) for k, v in own_gradients(module, a, g).items()}
    if module.bias is not None:
        sums["bias"] = g.flatten(2).sum(2).abs().sum(0) if g.dim() > 2 else g.abs().sum(0)
    return sums


def absolute_batch_gradient(model: nn.Module, inputs: Tensor, output: Output) -> Sums:
    """|∂ mean_n output(z_n)/∂θ_i| of one batch, by parameter name.

    Opposite signs cancel, so it is at most the mean of the absolute per-sample gradients.
    """
    with evaluating(model), torch.enable_grad():
        found = gradients(output(model(inputs)).mean(), trainable(model))
    return {name: g.abs() for name, g in found.items()}
