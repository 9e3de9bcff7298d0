"""Whether a method works on a model, and so does training it, found out by trying."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from unlearn_core.checks import InputError
from unlearn_core.library.cost import flops_of_training
from unlearn_core.scenarios.method_check import few_of, one_line, problem_of
from unlearn_core.scenarios.scenario import Split
from unlearn_core.seeding import Streams, global_seed
from unlearn_core.training import Recipe
from unlearn_core.types import Examples

DEVICES = (torch.OutOfMemoryError, torch.AcceleratorError)
"""Errors that are no fault of the arguments."""


def check_works(method: Any, model: nn.Module, split: Split, recipe: Recipe, rng: Streams) -> None:
    """Run every phase of the method on a few rows and a copy of the model, which must be possible to copy afterwards.

    Raises:
        InputError: if it fails there.
        torch.OutOfMemoryError, torch.AcceleratorError: if the device fails, which is no fault of the arguments.
    """
    with global_seed(0), torch.enable_grad():
        problem = problem_of(method, model, few_of(split), recipe, rng)
    if isinstance(problem, DEVICES):
        raise problem
    if problem is not None:
        who = type(method).__name__
        raise InputError(f"{who} cannot be used with this model: {one_line(problem)}") from problem


def price(model: nn.Module, rows: Examples, recipe: Recipe) -> int:
    """FLOPs of training a model like `model` on `rows` by `recipe`.

    Raises:
        InputError: if it cannot be trained by it, or if that costs no FLOPs.
        torch.OutOfMemoryError, torch.AcceleratorError: if the device fails.
    """
    try:
        return flops_of_training(model, rows, recipe)
    except (InputError, *DEVICES):
        raise
    except Exception as problem:  # a model is foreign code, which may raise anything
        fix = "give reference as a number, or change the model"
        raise InputError(f"the model cannot be trained by reference: {one_line(problem)}; {fix}") from problem
