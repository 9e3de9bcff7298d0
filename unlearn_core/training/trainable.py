"""What of a model may change: parameters that require gradients, and the modules that hold any.

A parameter whose `requires_grad` is false was frozen by whoever built the model. It gets no gradient, step, decay,
noise or reset, and a module whose parameters are all frozen stays in evaluation mode, so that its running statistics
stay as they are, too.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that require gradients, by name."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def gradients(value: Tensor, of: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """∂ value / ∂ parameter by name; zero for one that `value` does not depend on."""
    found = torch.autograd.grad(value, list(of.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(of, found, strict=True))


def is_frozen(module: nn.Module) -> bool:
    """Whether the module and its submodules hold parameters, all of them frozen."""
    flags = [parameter.requires_grad for parameter in module.parameters()]
    return bool(flags) and not any(flags)


def frozen_modules(model: nn.Module) -> set[nn.Module]:
    """The modules of which nothing may change: all that are frozen as a whole, and what is inside of these."""
    return {inner for module in model.modules() if is_frozen(module) for inner in module.modules()}


def set_training(model: nn.Module, on: bool = True) -> None:
    """Training mode (or evaluation mode) for all of the model but its frozen modules, which are in evaluation mode."""
    model.train(on)
    for module in frozen_modules(model) if on else ():
        module.training = False


def thaw_if_whole(model: nn.Module) -> nn.Module:
    """The model, unfrozen if all of it is frozen.

    Models are often kept so when they are done, which says nothing about what may change in them.
    """
    return model.requires_grad_(True) if is_frozen(model) else model
