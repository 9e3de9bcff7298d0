"""How a gradient with respect to the parameters changes with the inputs, without double backward.

For a function F of h = Σ_i w_i ∇_θ ℓ_i, the chain rule gives ∂F/∂x_i = w_i · D_θ[∇_x ℓ_i] · u with u = ∂F/∂h: the
derivative of the input gradient along one direction u in parameter space, which forward-mode differentiation of an
ordinary backward pass yields at once. Two passes, row by row independent, so memory does not grow with the number of
rows. Exact, unlike differences in θ, which ReLU networks make useless.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp
from torch.nn.functional import cross_entropy

from unlearn_core.training import evaluating
from unlearn_core.training.craft_meter import priced
from unlearn_core.training.trainable import gradients, trainable

CHUNK = 128  # rows at a time
Parameters = dict[str, Tensor]


def summed_gradient(model: nn.Module, inputs: Tensor, targets: Tensor, chunk: int = CHUNK) -> Parameters:
    """Σ_i ∇_θ ℓ_i of cross-entropy in evaluation mode, by parameter that is not frozen.

    Args:
        model: Any classifier.
        inputs: (m, *shape).
        targets: (m,) class indices.
        chunk: Rows of one pass.
    """
    parameters = trainable(model)
    totals = {name: torch.zeros_like(p) for name, p in parameters.items()}
    with evaluating(model), torch.enable_grad():
        for x, y in zip(inputs.split(chunk), targets.split(chunk), strict=True):
            with priced("gradient", id(model), x.shape):
                loss = cross_entropy(model(x), y, reduction="sum")
                found = gradients(loss, parameters)
            for name, part in found.items():
                totals[name] += part
    return totals


def directional_input_gradient(
    model: nn.Module, inputs: Tensor, targets: Tensor, direction: Parameters, chunk: int = CHUNK
) -> Tensor:
    """(m, *shape) D_θ[∇_x Σ_i ℓ_i] · direction.

    How each row's input gradient changes along `direction`, which equals ∇_x of the inner product of the row's
    parameter gradient with it.
    """
    parameters = {name: p.detach() for name, p in trainable(model).items()}

    def slope(x: Tensor, y: Tensor) -> Tensor:
        def input_gradient(at: Parameters) -> Tensor:
            return grad(lambda z: cross_entropy(functional_call(model, at, (z,)), y, reduction="sum"))(x)

        with priced("directional gradient", id(model), x.shape):
            return jvp(input_gradient, (parameters,), (direction,))[1]

    with evaluating(model):
        pieces = zip(inputs.split(chunk), targets.split(chunk), strict=True)
        return torch.cat([slope(x, y) for x, y in pieces])
