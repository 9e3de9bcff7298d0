"""Gradient search for rows whose gradients cancel a given one: on the last layer, or on all parameters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from unlearn_core.attacks.cross_gradients import Parameters, directional_input_gradient, summed_gradient
from unlearn_core.attacks.linear_canceling import Canceling
from unlearn_core.attacks.reachability import Head, mean_gradient
from unlearn_core.training import evaluating
from unlearn_core.training.craft_meter import priced
from unlearn_core.training.trainable import trainable
from unlearn_core.types import Dataset, Examples


class Search(NamedTuple):
    """Where a search starts and how it goes.

    Attributes:
        inputs: (m, *shape)
        targets: (m,), fixed.
        share: m over the number of clean rows.
        box: The data set whose pixel range the rows keep to, or None.
    """

    inputs: Tensor
    targets: Tensor
    share: float
    steps: int
    lr: float
    box: Dataset | None

    def inside(self, inputs: Tensor) -> Tensor:
        return inputs if self.box is None else self.box.from_pixels(self.box.to_pixels(inputs).clamp(0, 1))

    def descend(self, gradient: Callable[[Tensor], tuple[float, Tensor]]) -> tuple[Tensor, float]:
        """Adam with a cosine schedule, projected on the box; `gradient` gives (objective, its gradient).

        Returns the inputs (m, *shape) with the smallest objective, and that.
        """
        x = self.inputs.clone()
        adam = torch.optim.Adam([x], lr=self.lr)
        best, least = x.clone(), math.inf
        for step in range(self.steps + 1):
            value, x.grad = gradient(x)
            if value < least:
                best, least = x.clone(), value
            adam.param_groups[0]["lr"] = self.lr * (1 + math.cos(math.pi * step / self.steps)) / 2
            adam.step()
            x.copy_(self.inside(x))
        return best, least


def cancel_head(extractor: nn.Module, head: Head, pulled: Head, search: Search) -> Canceling:
    """Minimise ‖G + ε·g_ν‖² of the last layer over the rows; one backward pass through the features a step."""
    like, scale = search.inputs, pulled.norm()
    head, pulled = (Head(h.weight.to(like), h.bias.to(like)) for h in (head, pulled))
    weights = torch.full_like(search.targets, 1, dtype=like.dtype) * search.share / len(search.targets)

    def gradient(x: Tensor) -> tuple[float, Tensor]:
        leaf = x.detach().requires_grad_()
        with priced("head", id(extractor), x.shape):
            missed = pulled.plus(mean_gradient(head, extractor(leaf), search.targets, weights))
            value = missed.weight.square().sum() + missed.bias.square().sum()
            return float(value.detach()), torch.autograd.grad(value, leaf)[0]

    with evaluating(extractor), torch.enable_grad():
        best, least = _without_graph(search, gradient)
    return Canceling(best, search.targets, math.sqrt(least) / scale)


def cancel_all(model: nn.Module, train: Examples, weight_decay: float, search: Search) -> Canceling:
    """Minimise ‖G + ε·g_ν‖² over all parameters of `model`: dF/dx = 2·ε/m · D_θ[∇_x Σ ℓ] · (G + ε·g_ν), two passes."""
    clean = summed_gradient(model, train.inputs, train.targets)
    decay = (1 + search.share) * weight_decay
    pulled = {k: clean[k] / len(train) + decay * p.detach() for k, p in trainable(model).items()}
    weight = search.share / len(search.targets)

    def gradient(x: Tensor) -> tuple[float, Tensor]:
        poison = summed_gradient(model, x, search.targets)
        missed = {k: pulled[k] + weight * poison[k] for k in pulled}
        return _square(missed), 2 * weight * directional_input_gradient(model, x, search.targets, missed)

    best, least = _without_graph(search, gradient)
    return Canceling(best, search.targets, math.sqrt(least / _square(pulled)))


def _without_graph(search: Search, gradient: Callable[[Tensor], tuple[float, Tensor]]) -> tuple[Tensor, float]:
    def with_graph(x: Tensor) -> tuple[float, Tensor]:
        with torch.enable_grad():
            return gradient(x)

    with torch.no_grad():
        return search.descend(with_graph)


def _square(values: Parameters) -> float:
    return float(torch.stack([v.double().square().sum() for v in values.values()]).sum())
