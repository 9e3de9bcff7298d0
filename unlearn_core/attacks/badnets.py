"""Patch backdoor on images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unlearn_core import checks
from unlearn_core.attacks.rows import base_order, check_fraction, first_allowed, poison_count
from unlearn_core.checks import InputError
from unlearn_core.registry import ATTACKS
from unlearn_core.types import CraftContext, Dataset, Examples, Poisoned, Primary, Probe


@ATTACKS.register("badnets")
@dataclass(frozen=True, kw_only=True)
class BadNets:
    """Stamps a bright patch on training images and labels them with the target class.

    All-to-one: base rows are any rows of another class. The patch is written in pixel space, before augmentation.
    Measured by the share of held-out images of other classes that carry the patch and are taken for the target.
    Source: Gu, Dolan-Gavitt, Garg, 2017, arXiv:1708.06733.
    """

    primary: ClassVar[Primary] = Primary("backdoor_success", "backdoor_success_se", least_gap=0.1)

    fraction: float = 0.015  # share of the training rows
    target: int = 0  # class that the trigger calls
    size: int = 3  # side of the square patch in pixels
    offset: int = 0  # pixels between the patch and the bottom and right edge
    value: float = 1.0  # pixel value in [0, 1], all channels

    def __post_init__(self) -> None:
        check_fraction(self.fraction)
        checks.positive(size=self.size)
        checks.not_negative(target=self.target, offset=self.offset)
        checks.in_range("value", self.value, 0, 1)

    def choose_rows(self, train: Examples, context: CraftContext) -> Tensor:
        if self.target >= context.dataset.classes:
            raise InputError(
                f"target must be a class below {context.dataset.classes} for {context.dataset.name}, "
                f"but got {self.target!r}"
            )
        count = poison_count(self.fraction, len(train))
        why = f"have a class other than the target {self.target}"
        return first_allowed(base_order(train, context), train.targets != self.target, count, why=why)

    def craft(self, train: Examples, context: CraftContext) -> Poisoned:
        rows = self.choose_rows(train, context)
        inputs = self.stamp(train.inputs[rows], context.dataset)
        return Poisoned(rows, inputs, torch.full_like(train.targets[rows], self.target))

    def probes(self, held_out: Examples, context: CraftContext) -> dict[str, Probe]:
        others = held_out.rows(held_out.targets != self.target)
        labels = torch.full_like(others.targets, self.target)
        stamped = Examples(self.stamp(others.inputs, context.dataset), labels, others.ids)
        return {"unseen": Probe(stamped), "triggered": Probe(stamped, others.targets)}

    def stamp(self, inputs: Tensor, dataset: Dataset) -> Tensor:
        """The images (n, C, H, W), normalised, with the patch; nothing outside it changes."""
        height, width = inputs.shape[-2:]
        if self.size + self.offset > min(height, width):
            raise InputError(
                f"size {self.size} with offset {self.offset} does not fit into an image of {height} x {width} pixels"
            )
        stamped = inputs.clone()
        bottom, right = height - self.offset, width - self.offset
        patch = (slice(bottom - self.size, bottom), slice(right - self.size, right))
        stamped[..., *patch] = dataset.from_pixels(torch.full_like(stamped[..., *patch], self.value))
        return stamped
