"""Gaussian poisoning: keyed noise on some training inputs, an auditor's canary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unlearn_core import checks
from unlearn_core.attacks.rows import base_order, check_bounded, check_fraction, check_numeric, poison_count
from unlearn_core.registry import ATTACKS
from unlearn_core.seeding import Streams
from unlearn_core.types import CraftContext, Examples, Poisoned, Primary, Probe, Regularity


@ATTACKS.register("gaussian")
@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Adds keyed Gaussian noise to training inputs, labels unchanged; the model's memory of the noise is the poison.

    x_poison = x_base + ξ with ξ ~ N(0, ε² I) in the model's normalised input space, one draw per row, a function of
    (seed, row id) alone. Every column of a table gets noise, so leave out those that only number categories. With
    `clip` a poisoned image is clipped to valid pixels; the evidence always keeps the unclipped ξ, because the clipped
    noise depends on the image and would give false alarms.
    Measured by the Gaussian score S = −⟨g, ξ⟩ / (ε ‖g‖) at the clean base input, N(0, 1) for any model that is
    independent of ξ. Source: Pawelczyk et al., ICLR 2025, arXiv:2406.17216, Algorithms 1 and 2. Deviation: the sign,
    so that larger means more poison left.
    """

    primary: ClassVar[Primary] = Primary("gaussian_score", "gaussian_score_se", least_gap=0.1, z="gaussian_z")
    regularity: ClassVar[Regularity] = "low"  # every row has noise of its own

    fraction: float = 0.015  # share of the training rows
    epsilon: float = 0.566  # standard deviation of the noise, in units of the input's deviation per channel or column
    clip: bool = False  # clip poisoned images to valid pixels

    def __post_init__(self) -> None:
        check_fraction(self.fraction)
        checks.positive(epsilon=self.epsilon)

    def choose_rows(self, train: Examples, context: CraftContext) -> Tensor:
        check_numeric("gaussian", train, context.dataset)
        if self.clip:
            check_bounded("clip", train, context.dataset)
        return base_order(train, context)[: poison_count(self.fraction, len(train))]

    def craft(self, train: Examples, context: CraftContext) -> Poisoned:
        rows = self.choose_rows(train, context)
        base = train.rows(rows)
        noise = self.noise(base, context.rng, "noise")
        evidence = {"base_inputs": base.inputs, "noise": noise, "epsilon": torch.tensor(self.epsilon)}
        return Poisoned(rows, self._poison(base.inputs, noise, context), base.targets, evidence=evidence)

    def probes(self, held_out: Examples, context: CraftContext) -> dict[str, Probe]:
        inputs = self._poison(held_out.inputs, self.noise(held_out, context.rng, "unseen"), context)
        return {"unseen": Probe(Examples(inputs, held_out.targets, held_out.ids))}

    def noise(self, base: Examples, rng: Streams, label: str) -> Tensor:
        """ξ for each row, (m, *shape); drawn on the CPU so that every device sees the same poison."""
        cpu = Streams(rng.seed, torch.device("cpu"))
        shape = base.inputs.shape[1:]
        draws = [torch.randn(shape, generator=cpu(label, int(i))) for i in base.ids.tolist()]
        return self.epsilon * torch.stack(draws).to(base.inputs.device)

    def _poison(self, inputs: Tensor, noise: Tensor, context: CraftContext) -> Tensor:
        poisoned = inputs + noise
        if not self.clip:
            return poisoned
        return context.dataset.from_pixels(context.dataset.to_pixels(poisoned).clamp(0, 1))
