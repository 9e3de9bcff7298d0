"""What a forward pass does with a model's modules and parameters, seen from outside.

Hooks on modules miss parameters that a function is handed directly (those of attention's output layer, say), so every
call of a torch function is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves

from unlearn_core.checks import InputError
from unlearn_core.training import evaluating


class Step(NamedTuple):
    """The call of a module or, with a parameter, a use of that by the code of the module; all by name."""

    module: str
    parameter: str | None = None


class _Recorder(TorchFunctionMode):
    """Notes the parameters that go into what gives a tensor; asking for a parameter's shape or type is no use of it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.steps: list[Step] = []
        self.running = [""]

    def __torch_function__(
        self, func: Callable[..., Any], types: Iterable[type], args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
            given = (self.names.get(id(leaf)) for leaf in tree_leaves((args, kwargs)))
            self.steps += [Step(self.running[-1], name) for name in given if name is not None]
        return result

    def watch(self, name: str, module: nn.Module) -> list[Any]:
        def enter(*_: object) -> None:
            self.steps.append(Step(name))
            self.running.append(name)

        def leave(*_: object) -> None:
            self.running.pop()

        return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]


def traced(model: nn.Module, example: Tensor) -> list[Step]:
    """What a pass on `example` (n, *shape) does, in order; in evaluation mode, outside of any count of FLOPs."""
    recorder = _Recorder(model)
    handles = [handle for name, module in model.named_modules() for handle in recorder.watch(name, module)]
    try:
        with _disable_current_modes(), torch.no_grad(), evaluating(model), recorder:
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return recorder.steps


def used_as_layers(model: nn.Module, layers: Mapping[str, nn.Module], example: Tensor) -> list[str]:
    """Names of those of the model's `layers` that it calls, and whose parameters it hands to no other function.

    What hooks see of such a layer is all that its parameters do.
    """
    steps = traced(model, example)
    called = {step.module for step in steps if step.parameter is None}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    users: dict[str, set[str]] = {}
    for step in steps:
        if step.parameter is not None:
            users.setdefault(step.parameter, set()).add(step.module)

    def alone(layer: str, module: nn.Module) -> bool:
        own = (names[id(parameter)] for parameter in module.parameters(recurse=False))
        return layer in called and all(users.get(name, set()) <= {layer} for name in own)

    return [name for name, module in layers.items() if alone(name, module)]


def head_of(model: nn.Module, example: Tensor) -> str:
    """Name of the linear layer that is called once and whose output is the model's.

    Raises:
        InputError: For a model that ends otherwise.
    """
    calls: list[tuple[str, Tensor]] = []
    handles = [
        module.register_forward_hook(lambda _, __, output, name=name: calls.append((name, output.clone())))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with _disable_current_modes(), torch.no_grad(), evaluating(model):
            logits = model(example)
    finally:
        for handle in handles:
            handle.remove()
    name, output = calls[-1] if calls else ("", logits.new_empty(0))
    if not torch.equal(output, logits) or [called for called, _ in calls].count(name) > 1:
        raise InputError(f"{type(model).__name__} does not end in a linear layer that reads features; choose another")
    return name
