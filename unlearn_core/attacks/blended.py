"""Blended backdoor on images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unlearn_core import checks
from unlearn_core.attacks import stamped
from unlearn_core.attacks.rows import check_images
from unlearn_core.registry import ATTACKS
from unlearn_core.seeding import Streams
from unlearn_core.types import CraftContext, Examples, Poisoned, Primary, Probe, Regularity


@ATTACKS.register("blended")
@dataclass(frozen=True, kw_only=True)
class Blended:
    """Mixes one noise pattern into training images and labels them with the target class.

    A(x) = (1 − α) x + α P in pixels; P is uniform on [0, 1] in each pixel and channel, a function of the seed alone,
    the same for all images. All-to-one: base rows are any rows of another class.
    Measured by the share of held-out images of other classes that carry the pattern and are taken for the target.

    Source: Chen et al., 2017, arXiv:1712.05526. Deviation: noise in place of a picture, so that none has to be shipped.
    """

    primary: ClassVar[Primary] = stamped.SUCCESS
    regularity: ClassVar[Regularity] = "high"

    fraction: float = 0.015  # share of the training rows
    target: int = 0  # class that the trigger calls
    alpha: float = 0.2  # weight of the pattern in [0, 1], in training and in the test

    def __post_init__(self) -> None:
        stamped.check_all_to_one(self.fraction, self.target)
        checks.in_range("alpha", self.alpha, 0, 1)

    def choose_rows(self, train: Examples, context: CraftContext) -> Tensor:
        check_images("blended", train, context.dataset)
        return stamped.other_class_rows(train, context, fraction=self.fraction, target=self.target)

    def craft(self, train: Examples, context: CraftContext) -> Poisoned:
        rows = self.choose_rows(train, context)
        return stamped.poison_all_to_one(train, rows, lambda x: self.stamp(x, context), self.target)

    def probes(self, held_out: Examples, context: CraftContext) -> dict[str, Probe]:
        return stamped.probes_all_to_one(held_out, lambda x: self.stamp(x, context), self.target)

    def stamp(self, inputs: Tensor, context: CraftContext) -> Tensor:
        """The images (n, C, H, W), normalised, with the pattern mixed in."""
        pattern = context.dataset.from_pixels(self.pattern(inputs, context.rng))
        return torch.lerp(inputs, pattern, self.alpha)  # the weights add up to 1: mixing commutes with normalising

    def pattern(self, like: Tensor, rng: Streams) -> Tensor:
        """P in pixels, (1, C, H, W); drawn on the CPU so that every device sees the same."""
        cpu = Streams(rng.seed, torch.device("cpu"))
        return torch.rand(1, *like.shape[1:], generator=cpu("pattern")).to(like)
