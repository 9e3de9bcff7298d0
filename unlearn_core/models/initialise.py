"""Random initial weights: those of a direct child of a model depend on the seed and its name alone.

They come from the model's `factory`, a function without arguments that builds a new model with the same names, if it
has one; else from `reset_parameters()` of its modules.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from unlearn_core.checks import InputError, close_names, shown
from unlearn_core.seeding import derive, global_seed
from unlearn_core.training.trainable import frozen_modules


class NoResetError(InputError):
    """A model holds parameters that nothing can draw anew."""


def initialise(model: nn.Module, seed: int, parts: Sequence[str] | None = None) -> None:
    """Give `parts` of `model` (modules or parameters by name.

    All if None) fresh weights and running statistics, in place. What is frozen stays.

    Each direct child draws from its own stream, so re-initialising some parts gives the values that all would have got.
    Values are drawn in float32 on the CPU and copied: device, precision and memory layout of `model` do not matter.

    Raises:
        InputError: For an unknown part.
        NoResetError: For parameters that neither a factory nor a reset draws.
    """
    wanted = _wanted(model, parts)
    factory = getattr(model, "factory", None)
    if factory is None:
        fresh = _reset_values(model, seed, wanted)
    else:
        with global_seed(derive(seed, "factory")):
            fresh = factory().state_dict()
    _check_fresh(model, fresh, wanted)
    with torch.no_grad():
        for name, value in wanted.items():
            value.copy_(fresh[name])


def _wanted(model: nn.Module, parts: Sequence[str] | None) -> dict[str, Tensor]:
    """The parameters and stored buffers of `parts` that are not frozen, by their first name; a shared tensor once."""
    known = {name for name, _ in model.named_modules()} | {name for name, _ in model.named_parameters()}
    for part in parts or ():
        if part not in known:
            tops = [name for name, _ in model.named_children()]
            raise InputError(f"block {part!r} is unknown; {close_names(part, tops or known)}")
    held = frozen_modules(model)
    kept = {name for name, p in model.named_parameters() if not p.requires_grad} | {
        f"{name}.{own}" if name else own
        for name, module in model.named_modules()
        if module in held
        for own, _ in module.named_buffers(recurse=False)
    }
    once = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    stored = model.state_dict().items()
    return {name: value for name, value in stored if name in once and name not in kept and _within(name, parts)}


def _within(name: str, parts: Sequence[str] | None) -> bool:
    return parts is None or any(part in ("", name) or name.startswith(f"{part}.") for part in parts)


def _reset_values(model: nn.Module, seed: int, wanted: Iterable[str]) -> dict[str, Tensor]:
    """The state of a copy in which the children that hold what is wanted were reset; NaN where nothing was drawn."""
    # Random fills follow the memory layout, so the copy must be contiguous even if the model is channels-last.
    fresh = copy.deepcopy(model).to("cpu", torch.float32).to(memory_format=torch.contiguous_format)
    state, touched = fresh.state_dict(), {name.partition(".")[0] for name in wanted}
    parameters = dict(fresh.named_parameters())
    drawn = {id(parameters[name]) for name in wanted if name in parameters}
    for name in wanted:
        if name in parameters or name.endswith(("running_mean", "running_var")):
            state[name].fill_(math.nan)
    if next(fresh.parameters(recurse=False), None) is not None:
        with global_seed(derive(seed, "")):
            _reset(fresh)
    for name, child in fresh.named_children():
        if name in touched or not drawn.isdisjoint(map(id, child.parameters())):
            with global_seed(derive(seed, name)):
                for module in child.modules():
                    _reset(module)
    return fresh.state_dict()


def _reset(module: nn.Module) -> None:
    """Redraw what `module` itself holds; its submodules are visited on their own."""
    reset = getattr(module, "reset_parameters", None)
    if reset is not None:
        reset()


def _check_fresh(model: nn.Module, fresh: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Every wanted value was made, in the right shape."""
    for name, value in wanted.items():
        if name not in fresh or fresh[name].shape != value.shape:
            made = f"{tuple(fresh[name].shape)}" if name in fresh else "none"
            raise InputError(f"the model's factory gives no {shown(name)} of shape {tuple(value.shape)}, but {made}")
        if fresh[name].is_floating_point() and bool(fresh[name].isnan().any()):
            owner = model.get_submodule(name.rpartition(".")[0])
            raise NoResetError(
                f"{type(owner).__name__} holds parameters but has no reset_parameters() that draws {name!r} anew; give "
                "it one, or give the model an attribute `factory`: a function that builds a new model"
            )
