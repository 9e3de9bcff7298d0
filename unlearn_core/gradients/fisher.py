"""Sums of squared per-sample gradients (the diagonal of a Fisher matrix) without a loop over samples.

One forward and one backward pass give every layer's input a and output gradient g; a sample's parameter gradient is
then a function of its own rows of a and g alone, because the model runs in evaluation mode. Linear layers on flat
inputs need no per-sample gradient at all: Σ_n (g_n a_nᵀ)² = (g²)ᵀ(a²). Whether a model's layers can be taken apart like
that is found out by comparison with single rows; for one whose layers cannot there is `row_gradients.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from unlearn_core.gradients.row_gradients import FLOATS, Of, Sums, Total, Way, alone, batched, first_that_agrees
from unlearn_core.structure.forward_trace import used_as_layers
from unlearn_core.training import evaluating
from unlearn_core.training.trainable import gradients, trainable

Loss = Callable[[Tensor, Tensor], Tensor]
Rule = Callable[[nn.Module, Tensor, Tensor], Sums]
"""From a layer, its input and its output gradient to a sum over per-sample gradients, by name of its own parameters."""

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


class Kind(NamedTuple):
    """What is summed: a function of each number in the per-sample gradients, and how layers come to that sum."""

    of: Of
    rule: Rule


WAYS: WeakKeyDictionary[nn.Module, dict[Kind, Way]] = WeakKeyDictionary()  # found out once for each model


def squared_gradient_sums(model: nn.Module, inputs: Tensor, targets: Tensor, loss: Loss = summed_cross_entropy) -> Sums:
    """Σ_n (∂ℓ_n/∂θ_i)² for every parameter that is not frozen, by name; the model is in evaluation mode meanwhile.

    Args:
        model: Any classifier.
        inputs: (n, *shape).
        targets: (n,) class indices.
        loss: A sum over rows of per-row losses; or (k,) such sums, whose squares are added up: one forward and k
            backward passes.
    """
    return per_sample_sums(model, inputs, lambda logits: loss(logits, targets), Kind(torch.square, squared_sums))


def per_sample_sums(model: nn.Module, inputs: Tensor, total: Total, kind: Kind) -> Sums:
    """Sums over per-sample gradients, by name of the parameters that are not frozen; in evaluation mode meanwhile.

    They are taken layer by layer where that gives what single rows give, which is tried on the first rows that come of
    a model; else by torch.func; else row by row, at the same charge.

    Args:
        model: Any classifier.
        inputs: (n, *shape).
        total: From logits to a sum over rows of per-row numbers, or to (k,) such sums: one forward and k backward
            passes.
        kind: What is summed.

    Raises:
        NotImplementedError: If rows mix.
    """
    known = WAYS.setdefault(model, {})
    if kind not in known:
        ways = [batched(kind.of), alone(kind.of)]
        if _is_all_layers(model, inputs[:1]):
            ways.insert(0, partial(by_layers, rule=kind.rule))
        known[kind] = first_that_agrees(ways, model, inputs, kind.of)
    return known[kind](model, inputs, total)


def _is_all_layers(model: nn.Module, example: Tensor) -> bool:
    """Whether all that parameters do is seen at the layers that hold them.

    Comparing sums does not tell: what is missed can be small next to the gradients of other layers, and still be
    most of the gradient of its layer.
    """
    owners = {name: m for name, m in model.named_modules() if any(p.requires_grad for p in m.parameters(recurse=False))}
    return len(used_as_layers(model, owners, example)) == len(owners)


def by_layers(model: nn.Module, inputs: Tensor, total: Total, *, rule: Rule) -> Sums:
    """The sums from what goes in and comes out of each layer.

    Raises:
        NotImplementedError: For a model whose per-sample gradients one pass does not tell apart.
    """
    calls, wanted = list[Call](), trainable(model)

    def remember(name: str, module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append(Call(name, module, args[0].detach(), output, output._version))

    owners = [
        (name, m) for name, m in model.named_modules() if any(p.requires_grad for p in m.parameters(recurse=False))
    ]
    handles = [module.register_forward_hook(partial(remember, name)) for name, module in owners]
    try:
        with evaluating(model), torch.enable_grad():
            totals = total(model(inputs)).view(-1).unbind()
    finally:
        for handle in handles:
            handle.remove()
    _check_calls(model, calls, sorted(name for name, _ in owners), len(inputs))
    outputs, sums = [call.output for call in calls], Sums()
    with evaluating(model), torch.no_grad():
        for left, one in zip(reversed(range(len(totals))), totals, strict=True):
            inward = torch.autograd.grad(one, outputs, retain_graph=left > 0)
            for call, g in zip(calls, inward, strict=True):
                _add_layer(sums, call, g, rule)
    return {name: value for name, value in sums.items() if name in wanted}


def _add_layer(sums: Sums, call: Call, g: Tensor, rule: Rule) -> None:
    """Add what `rule` makes of one layer, of as many rows at a time as `FLOATS` allows."""
    rows = rows_at_once(call.module, call.input, g)
    for a, part in zip(call.input.split(rows), g.split(rows), strict=True):
        for parameter, value in rule(call.module, a, part).items():
            name = f"{call.name}.{parameter}" if call.name else parameter
            sums[name] = sums[name] + value if name in sums else value


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


def _check_calls(model: nn.Module, calls: list[Call], owners: list[str], rows: int) -> None:
    """A sample's gradient comes from its own row of one call only where no other row and call shares the parameter."""
    tied = len(list(model.parameters())) < len(list(model.named_parameters(remove_duplicate=False)))
    overwritten = any(call.output._version != call.version for call in calls)
    mixed = any(len(call.input) != rows or len(call.output) != rows for call in calls)
    if tied or overwritten or mixed or sorted(call.name for call in calls) != owners:
        raise NotImplementedError(
            "layers tell samples apart if each is called exactly once, with a row for each sample, shares "
            "no parameter, and has its output not changed in place"
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
    """Σ_n (gradient of the weight)².

    On a CPU few rows at a time: fresh memory for many costs more than their products, while caches hold those of a
    few.
    """
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
    """(tokens, width) Σ_n of(per-sample gradient), with of(0) = 0.

    A sample's gradient is zero but at its own tokens, where it is the sum over their places.

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
    """Square of the batch-mean gradient: what some published code calls Fisher.

    Differs from the mean of squared per-sample gradients by a factor of about 1/n plus the squared mean.
    """
    with evaluating(model), torch.enable_grad():
        loss = functional.cross_entropy(model(inputs).float(), targets)
        found = gradients(loss, trainable(model))
    return {name: g.square() for name, g in found.items()}
