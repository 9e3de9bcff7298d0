"""Whether the arguments of `unlearn` but its rows make sense."""

from __future__ import annotations

import copy
import dataclasses
import operator
from collections.abc import Sequence
from difflib import get_close_matches
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from unlearn_core import checks, unlearners
from unlearn_core.checks import InputError, shown
from unlearn_core.ranges import check_kinds
from unlearn_core.scenarios.method_check import one_line
from unlearn_core.training.recipe import Recipe
from unlearn_core.unlearners import Retrain, RetrainAtBudget

LARGEST_SEED = 2**63 - 1


def check_mode() -> None:
    """Gradients can be had; torch.no_grad() is no hindrance."""
    if torch.is_inference_mode_enabled():
        raise InputError("unlearning needs gradients, which torch.inference_mode() rules out; call it outside of that")


def check_method(method: Any) -> None:
    """A method with its settings, each of the right kind, and not its class or its name."""
    if isinstance(method, type) and hasattr(method, "updates"):
        raise InputError(f"method {method.__name__} is a class; write {method.__name__}() or give it settings")
    if isinstance(method, str):
        by_small = {name.lower(): name for name in unlearners.__all__}
        near = get_close_matches(method.lower().replace("_", ""), by_small, n=1) or ["scrub"]
        raise InputError(f"method {method!r} is a name; write unlearners.{by_small[near[0]]}()")
    lacking = [name for name in ("updates", "needs", "anytime") if not hasattr(method, name)]
    if lacking:
        raise InputError(f"method {shown(method)} has no {lacking[0]!r}; choose one of unlearn_core.unlearners")
    if dataclasses.is_dataclass(method):
        check_kinds(method)


def check_model(model: Any) -> None:
    """A module of float32 parameters on one device, all of them finite."""
    if not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module, but got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError("model is compiled by torch.jit, which cannot be trained here; give the module it was made of")
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if not any(True for _ in model.parameters()):
        raise InputError("model has no parameters: there is nothing to unlearn from")
    if unshaped := [name for name, tensor in tensors.items() if is_lazy(tensor)]:
        raise InputError(f"model has no shape for {unshaped[0]} yet; call it once on some rows")
    if any(tensor.is_inference() for tensor in tensors.values()):
        raise InputError("model was made inside torch.inference_mode() and cannot be trained; make it outside of that")
    devices = sorted({str(tensor.device) for tensor in tensors.values()})
    if len(devices) > 1:
        raise InputError(f"model must be on one device, but it is on {', '.join(devices)}; move it with .to()")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise InputError(f"model must be float32, but {name} is {_word(tensor.dtype)}; convert it with .float()")
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(f"model holds numbers that are not finite, in {name}; it diverged before")


def copied(model: nn.Module) -> nn.Module:
    """A copy of the model that what the caller does to the model later cannot change."""
    try:
        return copy.deepcopy(model)
    except Exception as problem:  # a model is foreign code, which may raise anything
        fix = "let it keep nothing of a pass"
        raise InputError(f"model cannot be copied: {one_line(problem)}; {fix}") from problem


def check_budgets(budgets: Any) -> list[float]:
    """Shares of the reference, in (0, 1] and increasing."""
    if not isinstance(budgets, Sequence | np.ndarray) or isinstance(budgets, str):
        raise InputError(f"budgets must be a list of shares such as [0.02, 0.1], but got {shown(budgets)}")
    for budget in budgets:
        if not is_number(budget) or not budget > 0:
            raise InputError(f"budgets must be numbers above 0, but got {shown(budget)}; 0.1 means 10 %")
        if budget > 1:
            raise InputError(f"budgets are shares of the reference, but got {shown(budget)}; 0.1 means 10 %")
    checks.increasing("budgets", list(budgets))
    return [float(budget) for budget in budgets]


def is_number(value: Any) -> bool:
    """A number of Python's or numpy's; True and False are none."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def check_reference(reference: Any, method: Any) -> None:
    """A recipe, or positive FLOPs; methods that train by a recipe need one."""
    if isinstance(reference, Recipe):
        return
    if not is_number(reference):
        raise InputError(f"reference must be a Recipe or FLOPs as a number, but got {shown(reference)}")
    checks.positive(reference=float(reference))
    if isinstance(method, Retrain | RetrainAtBudget):
        name = type(method).__name__
        raise InputError(f"{name} trains by a recipe, but reference is a number; give reference=Recipe(epochs=...)")


def check_seed(seed: Any) -> int:
    """A whole number of Python's or numpy's that is not negative."""
    number = operator.index(seed) if isinstance(seed, Integral) and not isinstance(seed, bool) else -1
    if not 0 <= number <= LARGEST_SEED:
        raise InputError(f"seed must be a whole number from 0 to {LARGEST_SEED}, but got {shown(seed)}")
    return number


def check_needs(method: Any, **sets: Any) -> None:
    """What the method reads must be there: sets, and their labels."""
    for name, rows in sets.items():
        who, fix, label = type(method).__name__, f"give {name}=(inputs, labels)", f"{name}_labels"
        if rows is None and {name, label} & set(method.needs):
            raise InputError(f"{who} needs the {name} set; {fix}")
        if has_no_labels(rows) and label in method.needs:
            raise InputError(f"{who} needs the labels of the {name} set; {fix}")


def check_recipe(recipe: Recipe, retain: Any) -> None:
    """Its cost is that of training on the retain set, labels included."""
    if retain is None or has_no_labels(retain):
        cost = "reference is a recipe, whose cost is that of training on the retain set"
        raise InputError(f"{cost}; give retain=(inputs, labels), or the FLOPs as a number")


def has_no_labels(rows: Any) -> bool:
    """Whether a pair was given whose second part is None."""
    return isinstance(rows, tuple | list) and len(rows) == 2 and rows[1] is None


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
