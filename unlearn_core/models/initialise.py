"""Random initial weights, block by block: a block's values depend on the seed and its name alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from unlearn_core.checks import InputError, close_names
from unlearn_core.seeding import derive, global_seed


def initialise(model: nn.Module, seed: int, blocks: Sequence[str] | None = None) -> None:
    """Give the direct children `blocks` of `model` (all if None) fresh weights and running statistics, in place.

    Each block draws from its own stream, so re-initialising some blocks gives the values that all would have got.
    Values are drawn in float32 on the CPU and copied: device, precision and memory layout of `model` do not matter.

    Raises: InputError for an unknown block; TypeError for a module whose parameters no `reset_parameters` sets.
    """
    children = dict(model.named_children())
    if not children or next(model.parameters(recurse=False), None) is not None:
        raise TypeError(f"{type(model).__name__} must consist of blocks: direct children that hold all parameters")
    for name in children if blocks is None else blocks:
        if name not in children:
            raise InputError(f"block {name!r} is unknown; {close_names(name, children)}")
        _initialise_block(children[name], derive(seed, name))


def _initialise_block(block: nn.Module, seed: int) -> None:
    # Random fills follow the memory layout, so the copy must be contiguous even if the model is channels-last.
    fresh = copy.deepcopy(block).to("cpu", torch.float32).to(memory_format=torch.contiguous_format)
    with global_seed(seed):
        for module in fresh.modules():
            _reset(module)
    block.load_state_dict(fresh.state_dict())


def _reset(module: nn.Module) -> None:
    """Redraw what `module` itself holds; its submodules are visited on their own."""
    reset = getattr(module, "reset_parameters", None)
    if reset is not None:
        reset()
    elif next(module.parameters(recurse=False), None) is not None or hasattr(module, "running_mean"):
        raise TypeError(f"{type(module).__name__} holds parameters but has no reset_parameters() to draw them anew")
