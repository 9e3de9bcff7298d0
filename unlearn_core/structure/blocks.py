"""The blocks of any model: groups of its parameters in the order in which a forward pass first uses them.

No forward pass is ever put together from a model's parts: whatever its `forward` does between them would be lost. Parts
are frozen in place (`freeze`) and the whole model runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from torch import Tensor, nn

from unlearn_core.structure.forward_trace import Step, traced
from unlearn_core.training.trainable import trainable


class Block(NamedTuple):
    """A group of parameters, and the modules whose mode and buffers belong to it; all by name."""

    name: str
    parameters: tuple[str, ...]
    modules: tuple[str, ...]


def blocks(model: nn.Module, example: Tensor) -> tuple[Block, ...]:
    """The model's blocks that hold parameters, in the order of first use.

    - Of an `nn.Sequential`, as all built-in models are: its children.
    - Of any other model whose children run one after the other, each at one stretch: its children, elements of module
      lists and its own parameters. One that holds more than half of all parameters is replaced by its parts, as long as
      these run one after the other as well: so wrappers and backbones do not hide their layers.
    - Of any other model: each module that itself holds parameters.

    A parameter that several modules share belongs to the block that uses it first. Parameters that the example does not
    reach are in the first block. A module without parameters belongs to the block that was at work before it.

    Args:
        model: Any module.
        example: (n, *shape) rows that it can read.
    """
    if isinstance(model, nn.Sequential) and type(model).forward is nn.Sequential.forward:
        parts, steps = parts_of(model, ""), _in_a_row(model)
    else:
        steps = traced(model, example)
        parts = _parts(model, [step.parameter for step in steps if step.parameter is not None])
    if not parts:
        return ()
    first_use = {part: len(steps) for part in parts} | _first_uses(parts, steps)
    never = [part for part in parts if first_use[part] == len(steps)]
    ordered = sorted(set(parts) - set(never), key=lambda part: first_use[part])
    members = _modules(model, parts, steps, ordered[0] if ordered else parts[0])
    names = [name for name, _ in model.named_parameters()]
    groups = [[*never, *ordered[:1]], *([part] for part in ordered[1:])]
    return tuple(
        Block(
            group[-1],
            tuple(name for name in names if part_of(name, parts) in group),
            tuple(name for name, part in members.items() if part in group),
        )
        for group in groups
    )


def last_blocks(model: nn.Module, example: Tensor, k: int) -> tuple[list[Block], list[Block]]:
    """The blocks as (all others, the last k that hold a parameter which is not frozen).

    A k beyond their number means all of these.
    """
    free, found = trainable(model).keys(), blocks(model, example)
    chosen = [block for block in found if not free.isdisjoint(block.parameters)][-k:]
    return [block for block in found if block not in chosen], chosen


@contextmanager
def freeze(model: nn.Module, frozen: Sequence[Block]) -> Iterator[None]:
    """Passes through the model give these blocks no gradients and leave their buffers; undone afterwards."""
    parameters = dict(model.named_parameters())
    held = [parameters[name] for block in frozen for name in block.parameters]
    modules = [model.get_submodule(name) for block in frozen for name in block.modules]
    flags, modes = [p.requires_grad for p in held], [module.training for module in modules]
    try:
        for parameter in held:
            parameter.requires_grad_(False)
        for module in modules:
            module.training = False
        yield
    finally:
        for parameter, flag in zip(held, flags, strict=True):
            parameter.requires_grad_(flag)
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def part_of(name: str, parts: Sequence[str]) -> str | None:
    """The part that the module or parameter `name` is, or is in."""
    pieces = name.split(".")
    ends = range(len(pieces), 0, -1)
    return next((part for end in ends if (part := ".".join(pieces[:end])) in parts), None)


def parts_of(model: nn.Module, prefix: str) -> list[str]:
    """Names of what the module `prefix` directly consists of, as far as it holds parameters.

    Its own, and its children, of which lists give way to their elements, as a list itself never runs.
    """
    module, start = model.get_submodule(prefix), f"{prefix}." if prefix else ""
    found = [start + name for name, _ in module.named_parameters(recurse=False)]
    for name, child in module.named_children():
        inner = parts_of(model, start + name) if isinstance(child, nn.ModuleList | nn.ModuleDict) else [start + name]
        found += inner
    held = [name for name, _ in model.named_parameters()]
    return [part for part in found if any(part_of(name, [part]) for name in held)]


def _parts(model: nn.Module, uses: list[str]) -> list[str]:
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    parts = parts_of(model, "")
    if not _one_after_the_other(parts, uses):
        owners = (name if "." not in name else name.rpartition(".")[0] for name in sizes)
        return list(dict.fromkeys(owners))
    while True:
        size = {part: sum(n for name, n in sizes.items() if part_of(name, [part])) for part in parts}
        largest = max(parts, key=lambda part: size[part])
        layer = largest in sizes or next(model.get_submodule(largest).children(), None) is None
        inner = [] if layer else parts_of(model, largest)
        if 2 * size[largest] <= sum(sizes.values()) or not inner or not _one_after_the_other(inner, uses):
            return parts
        place = parts.index(largest)
        parts[place : place + 1] = inner


def _one_after_the_other(parts: list[str], uses: list[str]) -> bool:
    """Whether no part is used again once another has been."""
    used = [part for part in (part_of(name, parts) for name in uses) if part is not None]
    stretches = [part for part, _ in itertools.groupby(used)]
    return len(stretches) == len(set(stretches))


def _in_a_row(model: nn.Module) -> list[Step]:
    """What a chain of children does, without running it."""
    steps = []
    for name, child in model.named_children():
        steps += [Step(f"{name}.{inner}" if inner else name) for inner, _ in child.named_modules()]
        steps += [Step(name, f"{name}.{own}") for own, _ in child.named_parameters()]
    return steps


def _first_uses(parts: list[str], steps: list[Step]) -> dict[str, int]:
    found: dict[str, int] = {}
    for number, step in enumerate(steps):
        part = part_of(step.parameter, parts) if step.parameter is not None else None
        if part is not None:
            found.setdefault(part, number)
    return found


def _modules(model: nn.Module, parts: list[str], steps: list[Step], first: str) -> dict[str, str]:
    """The part that each module belongs to; none for what is around several parts."""
    modules = dict(model.named_modules())
    members = {name: part for name in modules if (part := part_of(name, parts)) is not None}
    current = first
    for step in steps:
        part = part_of(step.parameter or step.module, parts)
        if part is not None:
            current = part
        elif next(modules[step.module].parameters(), None) is None:
            members.setdefault(step.module, current)
    return members
