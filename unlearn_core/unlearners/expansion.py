"""Extra hidden units beside a model's layers, which single rows may switch on and off, and which leave no trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from unlearn_core.checks import InputError
from unlearn_core.seeding import global_seed
from unlearn_core.structure.forward_trace import traced

Layer = nn.Linear | nn.Conv2d


class SideBranch(nn.Module):
    """ReLU units that read what a layer reads, and weights from them to what the layer puts out: zero at first."""

    def __init__(self, layer: Layer, units: int) -> None:
        super().__init__()
        self.into, self.out = reader(layer, units), writer(layer, units)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x: (n, ...) input of the layer; mask: (n, units), 1 where a row uses a unit."""
        hidden = nn.functional.relu(self.into(x))
        if isinstance(self.into, nn.Conv2d):
            mask = mask[:, :, None, None]
        else:
            mask = mask.view(len(mask), *[1] * (hidden.dim() - 2), -1)
        out: Tensor = self.out(hidden * mask)
        return out


def reader(layer: Layer, units: int) -> Layer:
    """A layer as `layer`, but with `units` outputs."""
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, units)
    return nn.Conv2d(
        layer.in_channels,
        units,
        layer.kernel_size,  # type: ignore[arg-type]  # declared as tuples of any length
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
        layer.dilation,  # type: ignore[arg-type]
        padding_mode=layer.padding_mode,
    )


def writer(layer: Layer, units: int) -> Layer:
    """Weights from `units` to the outputs of `layer`, without bias."""
    if isinstance(layer, nn.Linear):
        return nn.Linear(units, layer.out_features, bias=False)
    return nn.Conv2d(units, layer.out_channels, 1, bias=False)


class Expansion(nn.Module):
    """Side branches with random weights on all linear and convolution layers of a model but the last that it calls.

    A layer whose weight is handed to another function, or that works on something else than a row for each sample, has
    none: a branch could not act there. The model itself is never changed: the branches act while `active` says so.
    `units` is the number of units over all branches.

    Args:
        model: The model to branch from.
        inputs: (n, *shape) rows that the model can read; a few of them are looked at.
        share: Units of a branch, as a share of the outputs of its layer; at least one unit.
        seed: Of the random weights.

    Raises:
        InputError: For a model without a hidden layer.
    """

    def __init__(self, model: nn.Module, inputs: Tensor, *, share: float, seed: int) -> None:
        super().__init__()
        layers = widened_layers(model, inputs)
        if not layers:
            raise InputError("rem: the model has no hidden layer to widen: no linear or convolution layer but the last")
        outputs = [layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels for layer in layers]
        self.widths = [max(1, round(share * count)) for count in outputs]
        self.units = sum(self.widths)
        with global_seed(seed):
            made = [SideBranch(layer, width) for layer, width in zip(layers, self.widths, strict=True)]
        weight = layers[0].weight
        self.branches = nn.ModuleList(made).to(weight.device, weight.dtype)
        self._layers = tuple(layers)  # a tuple is not registered: the model's parameters are not the branches' own

    @contextmanager
    def active(self, mask: Tensor) -> Iterator[None]:
        """The model with its branches, for one batch. mask: (n, units), 1 where a row uses a unit."""
        parts = mask.to(self._layers[0].weight.dtype).split(self.widths, dim=1)

        def add(branch: nn.Module, part: Tensor, _: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
            added: Tensor = output + branch(args[0], part)
            return added

        handles = [
            layer.register_forward_hook(partial(add, branch, part))
            for layer, branch, part in zip(self._layers, self.branches, parts, strict=True)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def widened_layers(model: nn.Module, inputs: Tensor) -> list[Layer]:
    """The layers that can have a branch, in the order of registration; not the one that is called last."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, Layer)}
    called = [step.module for step in traced(model, inputs[:1]) if step.parameter is None and step.module in layers]
    able = _with_a_row_each(model, layers, inputs).intersection(called) - set(called[-1:])
    return [layer for name, layer in layers.items() if name in able]


def _with_a_row_each(model: nn.Module, layers: Mapping[str, nn.Module], inputs: Tensor) -> set[str]:
    """The layers whose inputs and outputs have a row for each of one and of two rows: no other length is both."""
    wrong: set[str] = set()

    def compare(name: str, rows: int, _: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if not args or len(args[0]) != rows or len(output) != rows:
            wrong.add(name)

    for part in (inputs[:1], inputs[:2]):
        handles = [m.register_forward_hook(partial(compare, name, len(part))) for name, m in layers.items()]
        try:
            traced(model, part)
        finally:
            for handle in handles:
                handle.remove()
    return layers.keys() - wrong


def draw_masks(rows: int, units: int, *, density: float, random: torch.Generator) -> Tensor:
    """(rows, units) boolean, each unit on with probability `density`."""
    return torch.rand(rows, units, generator=random, device=random.device) < density
