"""Patch backdoor on images that moves every class to the next one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unlearn_core.attacks import stamped
from unlearn_core.attacks.rows import base_order, check_fraction, check_images, poison_count
from unlearn_core.registry import ATTACKS
from unlearn_core.types import CraftContext, Dataset, Examples, Poisoned, Primary, Probe, Regularity


@ATTACKS.register("badnets_all_to_all")
@dataclass(frozen=True, kw_only=True)
class BadNetsAllToAll:
    """Stamps a bright patch on training images and labels them with the class after their own, y + 1 mod C.

    Base rows are any rows. Harder to learn than one target, because the model must see the class and the patch.
    Measured by the share of held-out images with the patch that are taken for the class after their own.

    Source: Gu, Dolan-Gavitt, Garg, 2017, arXiv:1708.06733, all-to-all attack. Deviation: one square patch, as in
    `badnets`.
    """

    primary: ClassVar[Primary] = stamped.SUCCESS
    regularity: ClassVar[Regularity] = "high"

    fraction: float = 0.015  # share of the training rows
    size: int = 3  # side of the square patch in pixels
    offset: int = 0  # pixels between the patch and the bottom and right edge
    value: float = 1.0  # pixel value in [0, 1], all channels

    def __post_init__(self) -> None:
        check_fraction(self.fraction)
        stamped.check_patch(self.size, self.offset, self.value)

    def choose_rows(self, train: Examples, context: CraftContext) -> Tensor:
        check_images("badnets_all_to_all", train, context.dataset)
        return base_order(train, context)[: poison_count(self.fraction, len(train))]

    def craft(self, train: Examples, context: CraftContext) -> Poisoned:
        rows, data = self.choose_rows(train, context), context.dataset
        return stamped.poison(train, rows, lambda x: self.stamp(x, data), next_class(train.targets[rows], data))

    def probes(self, held_out: Examples, context: CraftContext) -> dict[str, Probe]:
        data = context.dataset
        return stamped.probes(held_out, lambda x: self.stamp(x, data), next_class(held_out.targets, data))

    def stamp(self, inputs: Tensor, dataset: Dataset) -> Tensor:
        """The images (n, C, H, W), normalised, with the patch; nothing outside it changes."""
        return stamped.patch(inputs, dataset, size=self.size, offset=self.offset, value=self.value)


def next_class(targets: Tensor, dataset: Dataset) -> Tensor:
    """y + 1 mod C."""
    return (targets + 1) % dataset.classes
