"""Orthonormal bases of what reaches the layers of a model, so that changes of weights can leave them alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearn_core.training import evaluating

Layer = nn.Linear | nn.Conv2d
TINY = 1e-10  # a direction whose share of the largest energy is below this is rounding


class Rows(NamedTuple):
    """Inputs A of a layer that are fewer than they are long, as (k, in) rows; decomposed by their Gram matrix."""

    rows: Tensor

    def plus(self, a: Tensor) -> Rows:
        return Rows(torch.cat([self.rows, a]))

    @property
    def energy(self) -> float:
        """‖A‖²."""
        return self.rows.square().sum().item()

    def without(self, basis: Tensor) -> Rows:
        """What the basis leaves of A."""
        return Rows(self.rows - (self.rows @ basis) @ basis.T)

    def principal(self) -> tuple[Tensor, Tensor]:
        """Energies, descending, and the (in, k) directions that hold them; rounding where an energy is."""
        values, vectors = torch.linalg.eigh(self.rows @ self.rows.T)
        values, vectors = values.flip(0), vectors.flip(1)
        return values, (self.rows.T @ vectors) / values.clamp(min=torch.finfo(values.dtype).tiny).sqrt()


class Products(NamedTuple):
    """Inputs A of a layer that are more than they are long, as the sum A Aᵀ over them, (in, in)."""

    product: Tensor

    def plus(self, a: Tensor) -> Products:
        return Products(self.product + a.T @ a)

    @property
    def energy(self) -> float:
        """‖A‖²."""
        return self.product.trace().item()

    def without(self, basis: Tensor) -> Products:
        """What the basis leaves of A."""
        left = self.product - basis @ (basis.T @ self.product)
        return Products(left - (left @ basis) @ basis.T)

    def principal(self) -> tuple[Tensor, Tensor]:
        """Energies, descending, and the (in, in) directions that hold them."""
        values, vectors = torch.linalg.eigh(self.product)
        return values.flip(0), vectors.flip(1)


Seen = Rows | Products


def begun(a: Tensor, count: int) -> Seen:
    """The first inputs a (k, in) of `count`: in the form of the smaller decomposition."""
    return Rows(a) if count <= a.shape[1] else Products(a.T @ a)


def layer_inputs(layer: Layer, a: Tensor) -> Tensor:
    """(k, in) vectors that the weight, flattened to (out, in), is multiplied by in a forward pass on `a`."""
    if isinstance(layer, nn.Linear):
        return a.flatten(0, -2)
    patches = functional.unfold(a, layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # type: ignore[arg-type]
    return patches.transpose(1, 2).flatten(0, 1)


@torch.no_grad()
def add_inputs(model: nn.Module, layers: list[Layer], seen: dict[int, Seen], rows: Tensor, *, total: int) -> None:
    """Add what reaches each layer from some rows, in evaluation mode, to what was seen of it.

    Args:
        model: The model that the rows pass through.
        layers: The layers to look at.
        seen: What was seen, by the layer's position; added to.
        rows: (n, *shape).
        total: Rows that will be added in all.
    """

    def add(number: int, layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Linear | nn.Conv2d)
        a = layer_inputs(layer, args[0]).double()
        seen[number] = seen[number].plus(a) if number in seen else begun(a, len(a) // len(rows) * total)

    handles = [layer.register_forward_pre_hook(partial(add, number)) for number, layer in enumerate(layers)]
    try:
        with evaluating(model), full_precision(rows):
            model(rows)
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def grown(basis: Tensor, seen: Seen, gamma: float) -> Tensor:
    """The (in, r) orthonormal basis with as many more directions as make it hold the share `gamma` of ‖A‖².

    Of what the basis leaves of A, the directions of most energy come first. Without change if A holds no finite energy.
    """
    energy = seen.energy
    if not 0 < energy < float("inf"):
        return basis
    with full_precision(basis):
        left = seen.without(basis)
        missing = gamma * energy - (energy - left.energy)
        if missing <= TINY * energy:
            return basis
        values, directions = left.principal()
        wanted = 1 + int((values.cumsum(0) < missing).sum())
        real = int((values > TINY * energy).sum())
        more = directions[:, : min(wanted, real)]
        more = more - basis @ (basis.T @ more)  # rounding, in directions of little energy
        return torch.cat([basis, torch.linalg.qr(more).Q], dim=1)


@contextmanager
def full_precision(like: Tensor) -> Iterator[None]:
    """No autocast on the device of `like`."""
    with torch.autocast(like.device.type, enabled=False):
        yield
