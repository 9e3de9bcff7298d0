"""Sums of squared per-sample gradients (the diagonal of a Fisher matrix) without a loop over samples.

One forward and one backward pass give every layer's input a and output gradient g; a sample's parameter gradient is
then a function of its own rows of a and g alone, because the model runs in evaluation mode. Linear layers on flat
inputs need no per-sample gradient at all: Σ_n (g_n a_nᵀ)² = (g²)ᵀ(a²).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import _disable_current_modes

from unlearn_core.training import evaluating

Sums = dict[str, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
Rule = Callable[[nn.Module, Tensor, Tensor], Sums]
"""From a layer, its input and its output gradient to a sum over per-sample gradients, by name of its own parameters."""

KEPT_FLOATS = 1 << 28  # numbers (1 GiB) that the layers' outputs of one pass, and their gradients, may take up
FLOATS = 1 << 26  # numbers (256 MiB) that the per-sample gradients of one layer may take up at a time
CACHED = 1 << 18  # as many of them as caches of a CPU core hold


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

    inputs: (n, *shape); targets: (n,). loss: a sum over rows of per-row losses; or (k,) such sums, whose squares are
    added up: one forward and k backward passes.
    """
    return per_sample_sums(model, inputs, lambda logits: loss(logits, targets), squared_sums)


def per_sample_sums(model: nn.Module, inputs: Tensor, total: Callable[[Tensor], Tensor], rule: Rule) -> Sums:
    """What `rule` adds up of each layer's per-sample gradients, by parameter name; in evaluation mode meanwhile.

    inputs: (n, *shape). total: from logits to a sum over rows of per-row numbers, or to (k,) such sums: one forward and
    k backward passes. Raises: NotImplementedError for a model whose per-sample gradients one pass does not tell apart.
    """
    calls: list[Call] = []

    def remember(name: str, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append(Call(name, module, args[0].detach(), output, output._version))

    owners = [(name, m) for name, m in model.named_modules() if next(m.parameters(recurse=False), None) is not None]
    handles = [module.register_forward_hook(partial(remember, name)) for name, module in owners]
    try:
        with evaluating(model), torch.enable_grad():
            totals = total(model(inputs)).view(-1).unbind()
    finally:
        for handle in handles:
            handle.remove()
    _check_calls(model, calls, sorted(name for name, _ in owners))
    outputs, sums = [call.output for call in calls], Sums()
    with evaluating(model), torch.no_grad():
        for left, one in zip(reversed(range(len(totals))), totals, strict=True):
            gradients = torch.autograd.grad(one, outputs, retain_graph=left > 0)
            for call, g in zip(calls, gradients, strict=True):
                _add_layer(sums, call, g, rule)
    return sums


def _add_layer(sums: Sums, call: Call, g: Tensor, rule: Rule) -> None:
    """Add what `rule` makes of one layer, of as many rows at a time as `FLOATS` allows."""
    rows = rows_at_once(call.module, call.input, g)
    for a, part in zip(call.input.split(rows), g.split(rows), strict=True):
        for parameter, value in rule(call.module, a, part).items():
            name = f"{call.name}.{parameter}" if call.name else parameter
            sums[name] = sums[name] + value if name in sums else value


def rows_within(model: nn.Module, inputs: Tensor, most: int, limit: int = KEPT_FLOATS) -> int:
    """How many rows of `inputs` (n, *shape) one pass may take: at most `most`, and fewer where what the layers put out
    and its gradient would hold more than `limit` numbers; at least one.

    Only shapes are computed, on a copy without storage; that is outside of any count of FLOPs.
    """
    sizes: list[int] = []
    with _disable_current_modes(), torch.no_grad():
        shadow = copy.deepcopy(model).to("meta").eval()
        for layer in shadow.modules():
            if next(layer.children(), None) is None:
                layer.register_forward_hook(lambda _, __, output: sizes.append(output.numel()))
        shadow(inputs[:1].to("meta"))
    return max(1, min(most, limit // max(1, 2 * sum(sizes))))


def rows_at_once(module: nn.Module, a: Tensor, g: Tensor) -> int:
    """How many rows' gradients of this layer, and patches of its input `a`, fit into `FLOATS`; at least one."""
    if isinstance(module, nn.Embedding) or (isinstance(module, nn.Linear) and a.dim() == 2):
        return max(1, len(a))  # makes no per-sample gradients
    return max(1, FLOATS // row_size(module, g))


def row_size(module: nn.Module, g: Tensor) -> int:
    """Numbers in one row's gradient of this layer and, of a convolution, in the patches of its input."""
    size = sum(p.numel() for p in module.parameters(recurse=False))
    if isinstance(module, nn.Conv2d):
        size += module.weight[0].numel() * module.groups * g[0, 0].numel()
    return size


def _check_calls(model: nn.Module, calls: list[Call], owners: list[str]) -> None:
    """A sample's gradient comes from one call only where no other call shares the parameter."""
    tied = len(list(model.parameters())) < len(list(model.named_parameters(remove_duplicate=False)))
    overwritten = any(call.output._version != call.version for call in calls)
    if tied or overwritten or sorted(call.name for call in calls) != owners:
        raise NotImplementedError(
            "per-sample gradients need a model that calls each of its layers exactly once, shares no parameter between "
            "layers, and changes no layer's output in place"
        )


def squared_sums(module: nn.Module, a: Tensor, g: Tensor) -> Sums:
    """Σ_n (per-sample gradient)² of one layer's own parameters, from its input `a` and output gradient `g`."""
    if isinstance(module, nn.Linear) and a.dim() == 2:
        sums = {"weight": g.square().T @ a.square()}
    elif isinstance(module, nn.Linear):
        a, g = a.flatten(1, -2), g.flatten(1, -2).transpose(1, 2)
        sums = {"weight": (g @ a).square().sum(0)}
    elif isinstance(module, nn.Embedding):
        return {"weight": embedding_sums(module, a, g, torch.square)}
    elif isinstance(module, nn.Conv2d):
        sums = {"weight": _conv_squares(module, a, g)}
    elif isinstance(module, _BatchNorm):
        return _norm_sums(module, a, g)
    else:
        return {k: v.square().sum(0) for k, v in own_gradients(module, a, g).items()}
    if module.bias is not None:
        sums["bias"] = g.flatten(2).sum(2).square().sum(0) if g.dim() > 2 else g.square().sum(0)
    return sums


def _conv_squares(module: nn.Conv2d, a: Tensor, g: Tensor) -> Tensor:
    """Σ_n (gradient of the weight)². On a CPU few rows at a time: fresh memory for many costs more than their products,
    while caches hold those of a few."""
    if a.device.type != "cpu":
        return conv_weight_gradients(module, a, g).square().sum(0)
    total, rows = torch.zeros_like(module.weight), max(1, CACHED // row_size(module, g))
    for some, part in zip(a.split(rows), g.split(rows), strict=True):
        for gradient in conv_weight_gradients(module, some, part):
            total.addcmul_(gradient, gradient)
    return total


def _norm_sums(module: _BatchNorm, a: Tensor, g: Tensor) -> Sums:
    """BatchNorm in evaluation mode: a scale's gradient is Σ g x̂ over a row's places, a shift's is Σ g."""
    if module.running_mean is None or module.running_var is None:
        raise NotImplementedError("per-sample gradients need BatchNorm with running statistics")
    a, g = (x.flatten(2) if x.dim() > 2 else x.unsqueeze(2) for x in (a, g))
    shift = g.sum(2)
    scale = ((g * a).sum(2) - module.running_mean * shift) * (module.running_var + module.eps).rsqrt()
    return {"weight": scale.square().sum(0), "bias": shift.square().sum(0)}


def conv_weight_gradients(module: nn.Conv2d, a: Tensor, g: Tensor) -> Tensor:
    """(n, *weight shape): each sample's output gradient times the patches of its input.

    Not conv2d_weight under vmap: that is one convolution with a group per sample, which torch's FLOP counter takes for
    n times its price.
    """
    if isinstance(module.padding, str) or module.padding_mode != "zeros":
        raise NotImplementedError("Conv2d is supported with zero padding given in numbers only")
    patches = functional.unfold(a, module.kernel_size, module.dilation, module.padding, module.stride)
    patches, g = (x.flatten(2).unflatten(1, (module.groups, -1)) for x in (patches, g))
    return (g @ patches.transpose(2, 3)).view(len(a), *module.weight.shape)


def embedding_sums(module: nn.Embedding, ids: Tensor, g: Tensor, of: Callable[[Tensor], Tensor]) -> Tensor:
    """(tokens, width) Σ_n of(per-sample gradient), with of(0) = 0: a sample's gradient is zero but at its own tokens,
    where it is the sum over their places.

    Sums are those of an embedding's backward pass, whose kernels on CUDA sort where index_add adds in no fixed order;
    torch promises the same bits for neither.
    """
    add = torch.ops.aten.embedding_dense_backward
    rows = torch.arange(len(ids), device=ids.device).view(-1, *[1] * (ids.dim() - 1))
    pairs, place = torch.unique(rows * module.num_embeddings + ids, return_inverse=True)
    summed = add(g.contiguous(), place, len(pairs), -1, False)
    ignored = -1 if module.padding_idx is None else module.padding_idx
    total: Tensor = add(of(summed), pairs % module.num_embeddings, module.num_embeddings, ignored, False)
    return total


def own_gradients(module: nn.Module, a: Tensor, g: Tensor) -> Sums:
    """Any other layer: (n, *shape) per-sample gradients of its parameters, by vector-Jacobian products of it alone."""
    return dict(vmap(partial(_own_gradient, module))(a, g))


def _own_gradient(module: nn.Module, a: Tensor, g: Tensor) -> Sums:
    """`own_gradients` of one sample."""
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
