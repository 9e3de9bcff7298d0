"""Models on flattened inputs; they accept any input shape."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from torch import nn

from unlearn_core import checks
from unlearn_core.checks import InputError
from unlearn_core.models.building import chain
from unlearn_core.registry import MODELS


@MODELS.register("linear")
@dataclass(frozen=True, kw_only=True)
class Linear:
    """Softmax regression on the flattened input; one block, the head."""

    def build(self, *, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        return chain(head=nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), classes)))


@MODELS.register("mlp")
@dataclass(frozen=True, kw_only=True)
class Mlp:
    """Fully connected ReLU network on the flattened input: blocks fc1, fc2, ... and the head."""

    hidden: tuple[int, ...] = (256,)  # units of each hidden layer

    def __post_init__(self) -> None:
        if not self.hidden:
            raise InputError("hidden must list at least one layer; without any, choose the model linear")
        for units in self.hidden:
            checks.in_range("hidden", units, 1, 10**6)

    def build(self, *, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        widths = (math.prod(input_shape), *self.hidden)
        blocks: dict[str, nn.Module] = {}
        for number, (inside, outside) in enumerate(itertools.pairwise(widths), start=1):
            flatten = [nn.Flatten()] if number == 1 else []
            blocks[f"fc{number}"] = nn.Sequential(*flatten, nn.Linear(inside, outside), nn.ReLU())
        return chain(**blocks, head=nn.Linear(widths[-1], classes))
