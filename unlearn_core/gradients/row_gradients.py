"""Sums over per-sample gradients for any model, and the choice of the fastest way that gives the right sums.

All ways run in evaluation mode, and all cost the forward and backward pass of the rows as one batch: what one of them
does besides is the same arithmetic in another shape, of which the counter takes grouped convolutions for many times
their price.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp, vmap
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

from unlearn_core.training import evaluating
from unlearn_core.training.trainable import trainable

Sums = dict[str, Tensor]
Total = Callable[[Tensor], Tensor]
"""From logits (n, C) to a sum over rows of per-row numbers, or to (k,) such sums."""
Of = Callable[[Tensor], Tensor]
"""A function of each number in a per-sample gradient, 0 at 0 and increasing from there."""
Way = Callable[[nn.Module, Tensor, Total], Sums]
"""From a model, rows (n, *shape) and totals to Σ_n Σ_k of(gradient of total k in row n), by parameter name."""

KEPT_FLOATS = 1 << 28  # numbers (1 GiB) that the layers' outputs of one pass, and their gradients, may take up
FLOATS = 1 << 26  # numbers (256 MiB) that the per-sample gradients of one layer, or all, may take up at a time
TRIED = 4  # rows on which ways are compared
NEAR = 1e-2  # of the largest value of a tensor, that rounding may account for
ROUNDING = 1e-4  # of the largest gradient, below which a gradient is nothing but rounding


def alone(of: Of) -> Way:
    """Row by row: slow, and right for every model whose rows do not mix."""

    def sums(model: nn.Module, inputs: Tensor, total: Total) -> Sums:
        parameters, wanted = trainable(model), output_gradients(model, inputs, total)
        found = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        with evaluating(model), _disable_current_modes(), torch.enable_grad():
            for row, outward in zip(inputs.split(1), wanted.split(1, dim=1), strict=True):
                logits = model(row)
                for g in outward.unbind():
                    parts = torch.autograd.grad(
                        logits, list(parameters.values()), g, True, allow_unused=True, materialize_grads=True
                    )
                    for value, part in zip(found.values(), parts, strict=True):
                        value += of(part)
        return found

    return sums


def batched(of: Of) -> Way:
    """All rows at once by torch.func, as many at a time as `FLOATS` allows."""

    def sums(model: nn.Module, inputs: Tensor, total: Total) -> Sums:
        parameters = {name: parameter.detach() for name, parameter in trainable(model).items()}
        rows = max(1, FLOATS // max(1, sum(p.numel() for p in parameters.values())))
        wanted = output_gradients(model, inputs, total)

        def of_row(row: Tensor, outward: Tensor) -> Sums:
            pull = vjp(lambda values: functional_call(model, values, (row[None],)), parameters)[1]
            return added([{name: of(g) for name, g in pull(one[None])[0].items()} for one in outward.unbind()])

        with evaluating(model), _disable_current_modes(), torch.no_grad():
            pieces = zip(inputs.split(rows), wanted.split(rows, dim=1), strict=True)
            found = [vmap(of_row, in_dims=(0, 1))(part, outward) for part, outward in pieces]
            return added([{name: value.sum(0) for name, value in part.items()} for part in found])

    return sums


def output_gradients(model: nn.Module, inputs: Tensor, total: Total) -> Tensor:
    """(k, n, C) gradients of the totals with respect to the logits.

    They are asked for with those of the parameters, though these are not needed: so the count of FLOPs is that of a
    batch gradient.
    """
    with evaluating(model), torch.enable_grad():
        logits = model(inputs)
        totals = total(logits).view(-1).unbind()
        at = [logits, *trainable(model).values()]
        found = [torch.autograd.grad(one, at, retain_graph=one is not totals[-1], allow_unused=True) for one in totals]
    return torch.stack([gradients[0] for gradients in found])


def added(parts: Sequence[Sums]) -> Sums:
    """Sums by name of sums by name; of at least one."""
    first, *others = parts
    for part in others:
        first = {name: value + part[name] for name, value in first.items()}
    return first


def first_that_agrees(ways: Sequence[Way], model: nn.Module, inputs: Tensor, of: Of) -> Way:
    """The first of `ways` that gives on some of the `inputs` what the last one gives, which is right; not counted.

    Raises:
        NotImplementedError: If the model's rows mix, so that a single row has no gradient.
        torch.OutOfMemoryError: If the device has too little memory; another way would not help.
        torch.AcceleratorError: If the device fails.
    """
    rows = inputs[:TRIED] if len(inputs) > 1 else torch.cat([inputs, inputs])
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with _disable_current_modes(), exact:
        _check_rows_apart(model, rows)
        expected = ways[-1](model, rows, _weighted)
        for way in ways[:-1]:
            try:
                found = way(model, rows, _weighted)
            except (torch.AcceleratorError, torch.OutOfMemoryError):  # the device's, which another way would meet, too
                raise
            except Exception:  # whatever goes wrong in a model taken apart says only that this way is not for it
                continue
            if agree(found, expected, of):
                return way
    return ways[-1]


def _weighted(logits: Tensor) -> Tensor:
    """A number of each row, summed, whose gradients do not vanish however sure the model is."""
    weights = torch.arange(1, 1 + logits.shape[1], device=logits.device)
    return (logits.float() * weights).sum()


@torch.no_grad()
def _check_rows_apart(model: nn.Module, rows: Tensor) -> None:
    with evaluating(model):
        together, single = model(rows), torch.cat([model(row) for row in rows.split(1)])
    if not agree({"": together}, {"": single}, torch.abs):
        raise NotImplementedError(
            "per-sample gradients need a model whose rows do not mix in evaluation mode, which they do where "
            "BatchNorm has no running statistics"
        )


def agree(found: Sums, expected: Sums, of: Of) -> bool:
    """Whether these are the same sums but for rounding."""
    largest = max(float(value.abs().max().nan_to_num()) for value in expected.values())
    least = float(of(torch.tensor(ROUNDING))) * largest
    return found.keys() == expected.keys() and all(
        torch.allclose(found[k], v, rtol=0, atol=NEAR * float(v.abs().max().nan_to_num()) + least, equal_nan=True)
        for k, v in expected.items()
    )


def rows_within(model: nn.Module, inputs: Tensor, most: int, limit: int = KEPT_FLOATS) -> int:
    """How many rows of `inputs` (n, *shape) one pass may take.

    At most `most`, and fewer where what the layers put out and its gradient would hold more than `limit` numbers; at
    least one.

    A row is passed through the model for that, outside of any count of FLOPs.
    """
    sizes: list[int] = []

    def measure(_: nn.Module, __: object, output: object) -> None:
        sizes.extend(leaf.numel() for leaf in tree_leaves(output) if isinstance(leaf, Tensor))

    layers = [layer for layer in model.modules() if next(layer.children(), None) is None]
    handles = [layer.register_forward_hook(measure) for layer in layers]
    try:
        with _disable_current_modes(), torch.no_grad(), evaluating(model):
            model(inputs[:1])
    finally:
        for handle in handles:
            handle.remove()
    return max(1, min(most, limit // max(1, 2 * sum(sizes))))
