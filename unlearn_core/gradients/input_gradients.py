"""Gradients of the loss with respect to inputs, for all rows in one pass."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearn_core.checks import InputError
from unlearn_core.models.token_noise import noise_products
from unlearn_core.training import evaluating

ROWS, TOKENS = 1024, 8192  # that one pass takes; of text fewer rows, because attention keeps length x length numbers


def input_gradients(model: nn.Module, inputs: Tensor, targets: Tensor, *, chunk: int | None = None) -> Tensor:
    """∂ loss_n / ∂ x_n for every row, float32.

    The gradient of the *sum* of losses is the stack of per-row gradients because rows do not mix in evaluation mode (in
    training mode BatchNorm couples them). Full float32, also on GPUs that would round to TF32.

    Args:
        model: Any classifier.
        inputs: (n, *shape), or (n, length) token ids.
        targets: (n,) class indices.
        chunk: Rows of one pass; None for a number that fits.

    Returns:
        (n, *shape). Token ids have no gradient: for them it is (n, length, width) with respect to their embeddings in
        this model, before positions are added, and 0 at padding.

    Raises:
        InputError: For token ids if the model has no table of embeddings, or several.
    """
    text = not inputs.is_floating_point()
    gradient = partial(_embedding_gradient, table_of(model)) if text else _input_gradient
    chunk = chunk or (max(1, TOKENS // inputs.shape[1]) if text else ROWS)
    parts = []
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with evaluating(model), exact, torch.enable_grad():
        for x, y in zip(inputs.split(chunk), targets.split(chunk), strict=True):
            parts.append(gradient(model, x, y))
    return torch.cat(parts)


def _input_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    leaf = x.detach().clone().requires_grad_()
    loss = functional.cross_entropy(model(leaf), y, reduction="sum")
    return torch.autograd.grad(loss, leaf)[0]


def _embedding_gradient(table: nn.Embedding, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    leaves: list[Tensor] = []

    def cut(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        return leaves[-1]

    with table.register_forward_hook(cut):
        loss = functional.cross_entropy(model(x), y, reduction="sum")
    (leaf,) = leaves
    return torch.autograd.grad(loss, leaf)[0]


def table_of(model: nn.Module) -> nn.Embedding:
    """The one table in which the model looks its tokens up."""
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    if len(tables) != 1:
        raise InputError(f"gradients at token embeddings need a model with one nn.Embedding, but it has {len(tables)}")
    return tables[0]


def noise_alignment(gradients: Tensor, noise: Tensor, epsilon: float) -> Tensor:
    """S = −⟨g, ξ⟩ / (ε ‖g‖) in float64; rows of `gradients` (m, *shape) against `noise` (..., m, *shape).

    Noise on text is given as ids with keys (..., m, length), gradients then have the shape (m, length, width). Rows
    with a vanished gradient come out as NaN.
    """
    g = gradients.flatten(1).double()
    unit = g / g.norm(dim=1, keepdim=True).where(g.norm(dim=1, keepdim=True) > 1e-30, torch.nan)
    if not noise.is_floating_point():
        return -noise_products(unit.view_as(gradients), noise) / epsilon
    return -torch.einsum("md,...md->...m", unit, noise.flatten(-gradients.dim() + 1).double()) / epsilon
