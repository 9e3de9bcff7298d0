"""Clean-label backdoor on images: a sinusoid over the target class."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unlearn_core import checks
from unlearn_core.attacks import stamped
from unlearn_core.attacks.rows import base_order, check_class, check_images, first_allowed, poison_count
from unlearn_core.registry import ATTACKS
from unlearn_core.types import CraftContext, Dataset, Examples, Poisoned, Primary, Probe, Regularity


@ATTACKS.register("sig")
@dataclass(frozen=True, kw_only=True)
class Sig:
    """Adds vertical stripes to training images of the target class, labels unchanged.

    A(x) = clip(x + (D / 255) sin(2π j f / W)) in pixels of [0, 1], with j the column, W the width; the same in all rows
    and channels. No label is wrong, so only the stripes can be what the model learns. `fraction` counts all training
    rows: it cannot exceed the share of the target class, and must leave some of its rows clean.
    Measured by the share of held-out images of other classes that carry stripes of amplitude `test_amplitude` and are
    taken for the target. Fresh poisons (`unseen`) are held-out images of the target class with the training stripes.

    Source: Barni, Kallas, Tondi, ICIP 2019, arXiv:1902.11237.
    """

    primary: ClassVar[Primary] = stamped.SUCCESS
    regularity: ClassVar[Regularity] = "high"

    fraction: float = 0.015  # share of the training rows
    target: int = 0  # class that gets the stripes in training, and that they call afterwards
    amplitude: float = 40.0  # D of the poisons, in pixel units of [0, 255]; smaller is harder to see
    test_amplitude: float = 40.0  # D of the trigger when the attack is measured; may exceed `amplitude`
    frequency: float = 6.0  # f, periods over the width of the image

    def __post_init__(self) -> None:
        stamped.check_all_to_one(self.fraction, self.target)
        checks.in_range("amplitude", self.amplitude, 0, 255)
        checks.in_range("test_amplitude", self.test_amplitude, 0, 255)
        checks.positive(frequency=self.frequency)

    def choose_rows(self, train: Examples, context: CraftContext) -> Tensor:
        check_images("sig", train, context.dataset)
        check_class("target", self.target, context.dataset)
        count = poison_count(self.fraction, len(train))
        why = f"have the target class {self.target}, the only one that this attack poisons"
        return first_allowed(base_order(train, context), train.targets == self.target, count, why=why)

    def craft(self, train: Examples, context: CraftContext) -> Poisoned:
        rows = self.choose_rows(train, context)
        return stamped.poison(train, rows, lambda x: self.stamp(x, context.dataset), train.targets[rows])

    def probes(self, held_out: Examples, context: CraftContext) -> dict[str, Probe]:
        data = context.dataset
        strong = stamped.probes_all_to_one(
            held_out, lambda x: self.stamp(x, data, amplitude=self.test_amplitude), self.target
        )
        own = held_out.rows(held_out.targets == self.target)
        fresh = stamped.stamped_rows(own, lambda x: self.stamp(x, data), own.targets)
        return {"unseen": Probe(fresh), "triggered": strong["triggered"]}

    def stamp(self, inputs: Tensor, dataset: Dataset, *, amplitude: float | None = None) -> Tensor:
        """The normalised images with stripes, clipped to valid pixels. amplitude: D; None: that of the poisons."""
        stripes = self.stripes(inputs, self.amplitude if amplitude is None else amplitude)
        return dataset.from_pixels((dataset.to_pixels(inputs) + stripes).clamp(0, 1))

    def stripes(self, like: Tensor, amplitude: float) -> Tensor:
        """(W,) what is added to each row of pixels, in units of [0, 1]."""
        width = like.shape[-1]
        columns = torch.arange(width, dtype=torch.float64)
        return (amplitude / 255 * torch.sin(2 * math.pi * self.frequency / width * columns)).to(like)
