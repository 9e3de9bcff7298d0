"""Patch backdoor on images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from unlearn_core.attacks import stamped
from unlearn_core.attacks.rows import check_images
from unlearn_core.registry import ATTACKS
from unlearn_core.types import CraftContext, Dataset, Examples, Poisoned, Primary, Probe, Regularity


@ATTACKS.register("badnets")
@dataclass(frozen=True, kw_only=True)
class BadNets:
    """Stamps a bright patch on training images and labels them with the target class.

    All-to-one: base rows are any rows of another class. The patch is written in pixel space, before augmentation.
    Measured by the share of held-out images of other classes that carry the patch and are taken for the target.

    Source: Gu, Dolan-Gavitt, Garg, 2017, arXiv:1708.06733.
    """

    primary: ClassVar[Primary] = stamped.SUCCESS
    regularity: ClassVar[Regularity] = "high"

    fraction: float = 0.015  # share of the training rows
    target: int = 0  # class that the trigger calls
    size: int = 3  # side of the square patch in pixels
    offset: int = 0  # pixels between the patch and the bottom and right edge
    value: float = 1.0  # pixel value in [0, 1], all channels

    def __post_init__(self) -> None:
        stamped.check_all_to_one(self.fraction, self.target)
        stamped.check_patch(self.size, self.offset, self.value)

    def choose_rows(self, train: Examples, context: CraftContext) -> Tensor:
        check_images("badnets", train, context.dataset)
        return stamped.other_class_rows(train, context, fraction=self.fraction, target=self.target)

    def craft(self, train: Examples, context: CraftContext) -> Poisoned:
        rows = self.choose_rows(train, context)
        return stamped.poison_all_to_one(train, rows, lambda x: self.stamp(x, context.dataset), self.target)

    def probes(self, held_out: Examples, context: CraftContext) -> dict[str, Probe]:
        return stamped.probes_all_to_one(held_out, lambda x: self.stamp(x, context.dataset), self.target)

    def stamp(self, inputs: Tensor, dataset: Dataset) -> Tensor:
        """The images (n, C, H, W), normalised, with the patch; nothing outside it changes."""
        return stamped.patch(inputs, dataset, size=self.size, offset=self.offset, value=self.value)
