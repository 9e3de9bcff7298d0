"""Importance of parameters for what a model puts out, without labels: sums of absolute gradients of its output norm."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import vmap

from unlearn_core.fisher import Call, Sums, _check_calls, _conv_weight_gradients, _own_gradient, rows_at_once
from unlearn_core.training import evaluating

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

    Each sample's gradient on its own, from the layer inputs and output gradients of one pass, as `unlearn_core.fisher`
    does it for squares, and with the same limits on the model (NotImplementedError).
    """
    calls: list[Call] = []

    def remember(name: str, module: nn.Module, args: tuple[Tensor, ...], made: Tensor) -> None:
        calls.append(Call(name, module, args[0].detach(), made, made._version))

    owners = [(name, m) for name, m in model.named_modules() if next(m.parameters(recurse=False), None) is not None]
    handles = [module.register_forward_hook(partial(remember, name)) for name, module in owners]
    try:
        with evaluating(model), torch.enable_grad():
            total = output(model(inputs)).sum()
    finally:
        for handle in handles:
            handle.remove()
    _check_calls(model, calls, sorted(name for name, _ in owners))
    gradients = torch.autograd.grad(total, [call.output for call in calls])
    sums: Sums = {}
    with evaluating(model), torch.no_grad():
        for call, g in zip(calls, gradients, strict=True):
            _add_layer(sums, call, g)
    return sums


def _add_layer(sums: Sums, call: Call, g: Tensor) -> None:
    """Add the absolute gradients of one layer, of as many rows at a time as memory is meant for."""
    rows = rows_at_once(call.module, call.input, g)
    for a, part in zip(call.input.split(rows), g.split(rows), strict=True):
        for parameter, value in _layer_sums(call.module, a, part).items():
            name = f"{call.name}.{parameter}" if call.name else parameter
            sums[name] = sums[name] + value if name in sums else value


def _layer_sums(module: nn.Module, a: Tensor, g: Tensor) -> Sums:
    """Σ_n |per-sample gradient| of one layer's own parameters, from its input `a` and output gradient `g`."""
    if isinstance(module, nn.Linear) and a.dim() == 2:
        sums = {"weight": g.abs().T @ a.abs()}  # |g aᵀ| = |g| |a|ᵀ
    elif isinstance(module, nn.Linear):
        a, g = a.flatten(1, -2), g.flatten(1, -2).transpose(1, 2)
        sums = {"weight": (g @ a).abs().sum(0)}
    elif isinstance(module, nn.Conv2d):
        sums = {"weight": _conv_weight_gradients(module, a, g).abs().sum(0)}
    else:
        return {k: v.abs().sum(0) for k, v in vmap(partial(_own_gradient, module))(a, g).items()}
    if module.bias is not None:
        sums["bias"] = g.flatten(2).sum(2).abs().sum(0) if g.dim() > 2 else g.abs().sum(0)
    return sums


def absolute_batch_gradient(model: nn.Module, inputs: Tensor, output: Output) -> Sums:
    """|∂ mean_n output(z_n)/∂θ_i| of one batch, by parameter name: opposite signs cancel, so it is at most the mean of
    the absolute per-sample gradients."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    with evaluating(model), torch.enable_grad():
        gradients = torch.autograd.grad(output(model(inputs)).mean(), parameters)
    return {name: g.abs() for name, g in zip(names, gradients, strict=True)}
