"""Frozen features: what a model that never saw the poisons makes of inputs, for linear models on top of it."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from unlearn_core import checks
from unlearn_core.checks import InputError
from unlearn_core.models.building import build_model, chain
from unlearn_core.seeding import Streams, derive, global_seed
from unlearn_core.structure.forward_trace import head_of
from unlearn_core.training import Recipe, predict, train_updates
from unlearn_core.training.budget import Meter, run_to_end
from unlearn_core.types import Dataset, Examples

CONSTANT = 1e-6  # share of the largest deviation below which a feature counts as constant


class Extractor(nn.Module):
    """Inputs to standardised features (n, d), optionally rotated to principal components.

    Attributes:
        body: A trained model without its last linear layer, or any map to (n, k).
        mean: (k,) mean of its outputs.
        scale: (k,) standard deviation of its outputs.
        basis: (k, d), orthonormal columns, or None.
    """

    mean: Tensor
    scale: Tensor
    basis: Tensor | None

    def __init__(self, body: nn.Module, mean: Tensor, scale: Tensor, basis: Tensor | None = None) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.register_buffer("basis", basis)

    @property
    def width(self) -> int:
        return len(self.mean) if self.basis is None else self.basis.shape[1]

    def forward(self, inputs: Tensor) -> Tensor:
        features = (self.body(inputs) - self.mean) / self.scale
        return features if self.basis is None else features @ self.basis

    def features(self, inputs: Tensor) -> Tensor:
        """(n, d) float32, in evaluation mode, without gradients."""
        return predict(self, inputs)


def keep_apart(dataset: Dataset, share: float) -> tuple[Examples, Dataset]:
    """The training rows that make an extractor, and the data set without them.

    Rows come in an order in which every prefix has the class shares of the whole (`load_dataset`): the first are apart.

    Raises:
        InputError: If too few rows are left on one side.
    """
    checks.in_range("apart", share, 0.01, 0.99)
    rows = torch.arange(len(dataset.train), device=dataset.train.targets.device)
    count = round(share * len(rows))
    if count < 2 * dataset.classes or len(rows) - count < 2 * dataset.classes:
        parts = f"{count} of {len(rows)} rows apart"
        raise InputError(f"apart {share!r} keeps {parts}, too few on one side for {dataset.classes} classes; change it")
    return dataset.train.rows(rows[:count]), replace(dataset, train=dataset.train.rows(rows[count:]))


def train_body(settings: Any, recipe: Recipe, apart: Examples, dataset: Dataset, *, seed: int) -> nn.Module:
    """A model of these settings trained on the rows kept apart, without its last linear layer."""
    model = build_model(settings, input_shape=dataset.input_shape, classes=dataset.classes, seed=derive(seed, "init"))
    device = apart.targets.device
    updates = train_updates(model.to(device), apart, recipe, Streams(derive(seed, "train"), device))
    with global_seed(derive(seed, "layers")):  # dropout, where a model has it, takes no generator
        cost = run_to_end(updates, model, Meter(device, recipe.bf16))
    if cost.status == "diverged":
        raise InputError(f"the extractor's training diverged: recipe lr {recipe.lr!r} is too large; lower it")
    return without_head(model, apart.inputs)


def without_head(model: nn.Module, inputs: Tensor) -> nn.Module:
    """A copy whose last layer is the identity, so that it gives the features which that layer reads.

    Args:
        model: A model that ends in a linear layer.
        inputs: (n, *shape) rows that the model can read; one of them is looked at.

    Raises:
        InputError: For a model whose output is not that of a linear layer.
    """
    name, body = head_of(model, inputs[:1]), copy.deepcopy(model).requires_grad_(False)
    if not name:  # the model is that layer
        return nn.Identity()
    body.set_submodule(name, nn.Identity())
    return body.eval()


def fit_extractor(body: nn.Module, apart: Examples, components: int | None = None) -> Extractor:
    """Mean, deviation and principal components are those of the rows kept apart, too.

    Each component's largest entry is positive, so that its sign is defined. Constant features (units that are dead
    on these rows) are only centred.

    Raises:
        InputError: If there are fewer features than `components`.
    """
    values = predict(body, apart.inputs).flatten(1).double()
    mean, scale = values.mean(0), values.std(0)
    scale = torch.where(scale > CONSTANT * scale.max(), scale, torch.ones_like(scale))
    basis = None
    if components is not None:
        if not 1 <= components <= values.shape[1]:
            raise InputError(f"components must lie in [1, {values.shape[1]}], the features there are, not {components}")
        standard = (values - mean) / scale
        basis = torch.linalg.eigh(standard.T @ standard).eigenvectors.flip(1)[:, :components]
        largest = basis.gather(0, basis.abs().argmax(0, keepdim=True))
        basis = (basis * largest.sign()).float()
    return Extractor(body, mean.float(), scale.float(), basis).eval()


def restored(body: nn.Module, state: dict[str, Tensor]) -> Extractor:
    """The extractor whose `state_dict` this is; `body` has the same layers, with any weights."""
    extractor = Extractor(body, state["mean"], state["scale"], state.get("basis"))
    extractor.load_state_dict(state)
    return extractor.requires_grad_(False).eval()


@dataclass(frozen=True)
class LinearOnFrozen:
    """Softmax regression on an extractor's features as a model on the extractor's inputs; only its head has weights."""

    extractor: Extractor
    reads_tokens: bool = False

    def build(self, *, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        return chain(features=_Held(self.extractor), head=nn.Linear(self.extractor.width, classes))


class _Held(nn.Module):
    """The extractor as a map without weights.

    Nothing re-initialises, trains or moves it, and its BatchNorm stays in evaluation mode. Gradients with respect to
    inputs go through.
    """

    def __init__(self, extractor: Extractor) -> None:
        super().__init__()
        self._held = (extractor,)  # in a tuple, so that it is no submodule

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = self._held[0](inputs)
        return features


@torch.no_grad()
def with_head(model: nn.Module, theta: Tensor) -> nn.Module:
    """`model` with the weights and, in the last column, the biases θ (C, d + 1) of its last linear layer, in place."""
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    head.weight.copy_(theta[:, :-1])
    head.bias.copy_(theta[:, -1])
    return model


def on_features(extractor: nn.Module, theta: Tensor) -> nn.Module:
    """Extractor and θ (C, d + 1) as one model to be measured, whose layers all can be looked at."""
    classes, width = theta.shape
    return with_head(nn.Sequential(extractor, nn.Linear(width - 1, classes)), theta).eval()
