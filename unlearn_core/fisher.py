"""Sums of squared per-sample gradients (the diagonal of the empirical Fisher matrix) without a loop over samples.

One forward and one backward pass give every layer's input a and output gradient g; a sample's parameter gradient is
then a function of its own rows of a and g alone, because the model runs in evaluation mode. Linear layers on flat
inputs need no per-sample gradient at all: Σ_n (g_n a_nᵀ)² = (g²)ᵀ(a²).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn import functional

from unlearn_core.training import evaluating

Sums = dict[str, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]


class Call(NamedTuple):
    """One forward pass through a layer that holds parameters."""

    name: str
    module: nn.Module
    input: Tensor
    output: Tensor
    version: int  # of the output when it was made


def summed_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy in nats, summed over the rows."""
    return functional.cross_entropy(logits.float(), targets, reduction="sum")


def squared_gradient_sums(model: nn.Module, inputs: Tensor, targets: Tensor, loss: Loss = summed_cross_entropy) -> Sums:
    """Σ_n (∂ℓ_n/∂θ_i)² for every parameter, by name; the model is in evaluation mode meanwhile.

    inputs: (n, *shape); targets: (n,). loss: a sum over rows of per-row losses.
    """
    calls: list[Call] = []

    def remember(name: str, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append(Call(name, module, args[0].detach(), output, output._version))

    owners = [(name, m) for name, m in model.named_modules() if next(m.parameters(recurse=False), None) is not None]
    handles = [module.register_forward_hook(partial(remember, name)) for name, module in owners]
    try:
        with evaluating(model), torch.enable_grad():
            total = loss(model(inputs), targets)
    finally:
        for handle in handles:
            handle.remove()
    _check_calls(model, calls, sorted(name for name, _ in owners))
    output_gradients = torch.autograd.grad(total, [call.output for call in calls])
    sums: Sums = {}
    with evaluating(model), torch.no_grad():
        for call, g in zip(calls, output_gradients, strict=True):
            for parameter, value in layer_sums(call.module, call.input, g).items():
                sums[f"{call.name}.{parameter}" if call.name else parameter] = value
    return sums


def _check_calls(model: nn.Module, calls: list[Call], owners: list[str]) -> None:
    """A sample's gradient comes from one call only where no other call shares the parameter."""
    tied = len(list(model.parameters())) < len(list(model.named_parameters(remove_duplicate=False)))
    overwritten = any(call.output._version != call.version for call in calls)
    if tied or overwritten or sorted(call.name for call in calls) != owners:
        raise NotImplementedError(
            "per-sample gradients need a model that calls each of its layers exactly once, shares no parameter between "
            "layers, and changes no layer's output in place"
        )


def layer_sums(module: nn.Module, a: Tensor, g: Tensor) -> Sums:
    """Σ_n (per-sample gradient)² of one layer's own parameters, from its input `a` and output gradient `g`."""
    if isinstance(module, nn.Linear) and a.dim() == 2:
        sums = {"weight": g.square().T @ a.square()}
    elif isinstance(module, nn.Linear):
        a, g = a.flatten(1, -2), g.flatten(1, -2).transpose(1, 2)
        sums = {"weight": (g @ a).square().sum(0)}
    elif isinstance(module, nn.Conv2d):
        sums = {"weight": _conv_weight_gradients(module, a, g).square().sum(0)}
    else:
        return {k: v.square().sum(0) for k, v in vmap(partial(_own_gradient, module))(a, g).items()}
    if module.bias is not None:
        sums["bias"] = g.flatten(2).sum(2).square().sum(0) if g.dim() > 2 else g.square().sum(0)
    return sums


def _conv_weight_gradients(module: nn.Conv2d, a: Tensor, g: Tensor) -> Tensor:
    """(n, *weight shape): each sample's output gradient times the patches of its input.

    Not conv2d_weight under vmap: that is one convolution with a group per sample, which torch's FLOP counter takes for
    n times its price.
    """
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        raise NotImplementedError("Conv2d is supported with zero padding given in numbers only")
    patches = functional.unfold(a, module.kernel_size, module.dilation, module.padding, module.stride)
    patches, g = (x.flatten(2).unflatten(1, (module.groups, -1)) for x in (patches, g))
    return (g @ patches.transpose(2, 3)).view(len(a), *module.weight.shape)


def _own_gradient(module: nn.Module, a: Tensor, g: Tensor) -> Sums:
    """Any other layer: the vector-Jacobian product of the layer alone, on one sample."""
    own = {name: parameter.detach() for name, parameter in module.named_parameters(recurse=False)}
    pull = vjp(lambda values: functional_call(module, values, (a[None],)), own)[1]
    return dict(pull(g[None])[0])


def squared_batch_gradient(model: nn.Module, inputs: Tensor, targets: Tensor) -> Sums:
    """Square of the batch-mean gradient: what some published code calls Fisher. Differs from the mean of squared
    per-sample gradients by a factor of about 1/n plus the squared mean."""
    names, parameters = zip(*model.named_parameters(), strict=True)
    with evaluating(model), torch.enable_grad():
        loss = functional.cross_entropy(model(inputs).float(), targets)
    gradients = torch.autograd.grad(loss, parameters)
    return {name: g.square() for name, g in zip(names, gradients, strict=True)}
