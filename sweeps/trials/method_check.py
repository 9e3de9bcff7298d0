"""Whether methods can work on a model, found out before anything is trained: each runs once on a few rows."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from sweeps.trials.device_errors import is_devices
from unlearn_core.checks import InputError
from unlearn_core.scenarios.method_check import few_rows, one_line, problem_of
from unlearn_core.scenarios.scenario import Scenario, Split
from unlearn_core.seeding import global_seed
from unlearn_core.training.trainable import set_training
from unlearn_core.types import Examples


def check_methods(methods: Mapping[str, Any], model_name: str, scenario: Scenario) -> None:
    """Run every phase of every method on a few rows of an untrained model.

    Args:
        methods: Built settings by name.
        model_name: What the user calls the model.
        scenario: Gives the model and the rows.

    Raises:
        InputError: Once, with the model and every method that fails, and what to do.
    """
    model, split = scenario.fresh_model("check"), few_rows(scenario.dataset.train)
    with global_seed(0):  # of a model that draws from it; what runs afterwards finds it as it was
        check_build(model, model_name, scenario)
        check_output(model, model_name, split.retain, scenario.dataset.classes)
        found = {name: _problem(method, model, split, scenario) for name, method in methods.items()}
    failed = {name: problem for name, problem in found.items() if problem is not None}
    if failed:
        reasons = "; ".join(f"{name} ({problem})" for name, problem in failed.items())
        fix = f"take {', '.join(failed)} out of methods, or change the model"
        raise InputError(f"methods that cannot be used with model {model_name}: {reasons}; {fix}")


def check_output(model: nn.Module, name: str, rows: Examples, classes: int) -> None:
    """Check that a model gives one logit for each class, in training too, and of the same rows always the same.

    The model itself is left as it is.

    Raises:
        InputError: If it does not.
    """
    wanted = (len(rows), classes)
    for mode, training in {"training": True, "evaluation": False}.items():
        output = _output(model, name, rows, training)
        if not isinstance(output, torch.Tensor):
            kind = type(output).__name__
            raise InputError(f"model {name} gives a {kind} in {mode} mode; let it give the logits alone")
        if output.shape != wanted:
            given = f"outputs of shape {tuple(output.shape)} for {len(rows)} rows"
            raise InputError(f"model {name} gives {given}, but {wanted} is needed")
    if not torch.allclose(output, _output(model, name, rows, False), equal_nan=True):
        fix = "does it call dropout without training=self.training?"
        raise InputError(f"model {name} gives other outputs for the same rows in evaluation mode; {fix}")


def _output(model: nn.Module, name: str, rows: Examples, training: bool) -> Any:
    """What a copy of the model makes of the rows, after which it must be possible to copy that, too."""
    net = copy.deepcopy(model)
    set_training(net, training)
    try:
        output = net(rows.inputs)
    except Exception as problem:  # a model is foreign code, which may raise anything
        raise InputError(f"model {name} cannot read the data: {one_line(problem)}; change the model") from None
    try:
        copy.deepcopy(net)
    except Exception as problem:
        fix = "let it keep nothing of a pass (with weight_norm, take that of torch.nn.utils.parametrizations)"
        raise InputError(f"model {name} cannot be copied once it has run: {one_line(problem)}; {fix}") from None
    return output


def check_build(model: nn.Module, name: str, scenario: Scenario) -> None:
    """What the settings build depends on the seed alone. Raises InputError."""
    again = scenario.fresh_model("check").state_dict()
    other = [key for key, value in model.state_dict().items() if not _same(value, again.get(key))]
    if other:
        fix = "let build draw from torch's global generator alone"
        raise InputError(f"model {name} starts with another {other[0]} each time, under the same seed; {fix}")


def _same(value: Any, other: Any) -> bool:
    if not isinstance(value, torch.Tensor) or not isinstance(other, torch.Tensor):
        return True  # extra state, of which nothing is known
    return value.shape == other.shape and torch.allclose(value, other, rtol=0, atol=0, equal_nan=True)


def _problem(method: Any, model: nn.Module, split: Split, scenario: Scenario) -> str | None:
    """What goes wrong when `method` runs on a copy of `model`, in one line."""
    problem = problem_of(method, model, split, scenario.recipe, scenario.streams("check"))
    if problem is not None and is_devices(problem):
        fix = "free its memory, or use another device"
        raise InputError(f"the device failed while methods were checked: {one_line(problem)}; {fix}") from problem
    return None if problem is None else one_line(problem)
