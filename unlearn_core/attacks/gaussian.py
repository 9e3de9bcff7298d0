"""Gaussian poisoning: keyed noise on some training inputs, an auditor's canary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unlearn_core import checks
from unlearn_core.attacks.rows import base_order, check_bounded, check_fraction, poison_count
from unlearn_core.checks import InputError
from unlearn_core.models.token_noise import KEYS, exact_scale, with_keys
from unlearn_core.registry import ATTACKS
from unlearn_core.seeding import Streams, derive
from unlearn_core.types import CraftContext, Dataset, Examples, Poisoned, Primary, Probe, Regularity

MOST_CATEGORIES = 20  # a column of a table with no more different values only numbers categories


@ATTACKS.register("gaussian")
@dataclass(frozen=True, kw_only=True)
class Gaussian:
    """Adds keyed Gaussian noise to training inputs, labels unchanged; the model's memory of the noise is the poison.

    x_poison = x_base + ξ with ξ ~ N(0, ε² I), one draw per row, a function of (seed, row id) alone.
    Images: in the model's normalised input space. With `clip` a poisoned image is clipped to valid pixels; the evidence
    always keeps the unclipped ξ, because the clipped noise depends on the image and would give false alarms.
    Tables: on standardised numeric columns; a column of 20 or fewer different values among the training rows is taken
    for a category (a flag, part of a one-hot code, a rank) and gets none. Few columns make weak scores: the 30 of
    breast_cancer do not take.
    Text: on the embedding of each token before its position is added, never on padding. ε is in units of the deviation
    of the embeddings that the model starts from (0.02 from scratch, of pretrained ones their own), rounded to 1/256,
    below 8; embeddings that training makes larger outgrow it.
    Measured by the Gaussian score S = −⟨g, ξ⟩ / (ε ‖g‖) at the clean base input, of text at the evaluated model's own
    embeddings: N(0, 1) for any model that is independent of ξ. Source: Pawelczyk et al., ICLR 2025, arXiv:2406.17216,
    Algorithms 1 and 2. Deviation: the sign, so that larger means more poison left.
    """

    primary: ClassVar[Primary] = Primary("gaussian_score", "gaussian_score_se", least_gap=0.1, z="gaussian_z")
    regularity: ClassVar[Regularity] = "low"  # every row has its own noise

    fraction: float = 0.015  # share of the training rows
    epsilon: float = 0.566  # deviation of the noise, over that of the input per channel or column, or of embeddings
    clip: bool = False  # clip poisoned images to valid pixels

    def __post_init__(self) -> None:
        check_fraction(self.fraction)
        checks.positive(epsilon=self.epsilon)

    def choose_rows(self, train: Examples, context: CraftContext) -> Tensor:
        self._scale(context.dataset)
        numeric_columns(context.dataset)
        if self.clip:
            check_bounded("clip", train, context.dataset)
        return base_order(train, context)[: poison_count(self.fraction, len(train))]

    def craft(self, train: Examples, context: CraftContext) -> Poisoned:
        rows = self.choose_rows(train, context)
        base = train.rows(rows)
        noise = self.noise(base, context, "noise")
        evidence = {"base_inputs": base.inputs, "noise": noise, "epsilon": torch.tensor(self._scale(context.dataset))}
        noisy = numeric_columns(context.dataset)
        if noisy is not None:
            evidence["noisy"] = noisy
        poisoned = self._poison(base.inputs, noise, context.dataset)
        if self.clip:
            evidence["clipped_noise"] = poisoned - base.inputs
        return Poisoned(rows, poisoned, base.targets, evidence=evidence)

    def probes(self, held_out: Examples, context: CraftContext) -> dict[str, Probe]:
        noise = self.noise(held_out, context, "unseen")
        inputs = self._poison(held_out.inputs, noise, context.dataset)
        return {"unseen": Probe(Examples(inputs, held_out.targets, held_out.ids))}

    def noise(self, base: Examples, context: CraftContext, label: str) -> Tensor:
        """ξ for each row, (m, *shape), or the texts with the keys that it is made from.

        Drawn on the CPU so that every device sees the same poison.
        """
        seed, device = context.rng.seed, base.inputs.device
        if not base.inputs.is_floating_point():
            keys = [1 + derive(seed, label, i) % (KEYS - 1) for i in base.ids.tolist()]
            return with_keys(base.inputs, torch.tensor(keys, device=device), self.epsilon)
        cpu = Streams(seed, torch.device("cpu"))
        shape = base.inputs.shape[1:]
        draws = [torch.randn(shape, generator=cpu(label, int(i))) for i in base.ids.tolist()]
        noise, noisy = self.epsilon * torch.stack(draws).to(device), numeric_columns(context.dataset)
        return noise if noisy is None else noise * noisy

    def _scale(self, dataset: Dataset) -> float:
        """ε as it is used here."""
        return self.epsilon if dataset.tokenizer is None else exact_scale(self.epsilon)

    def _poison(self, inputs: Tensor, noise: Tensor, dataset: Dataset) -> Tensor:
        if dataset.tokenizer is not None:
            return noise
        poisoned = inputs + noise
        return dataset.from_pixels(dataset.to_pixels(poisoned).clamp(0, 1)) if self.clip else poisoned


def numeric_columns(dataset: Dataset) -> Tensor | None:
    """(columns,) mask of the columns of a table that measure something; None for images and text, which have none.

    Raises:
        InputError: If no column does.
    """
    inputs = dataset.train.inputs
    if inputs.dim() != 2 or dataset.tokenizer is not None:
        return None
    levels = torch.tensor([len(column.unique()) for column in inputs.T], device=inputs.device)
    numeric = levels > MOST_CATEGORIES
    if not bool(numeric.any()):
        raise InputError(
            f"attack gaussian needs a column with more than {MOST_CATEGORIES} different values in the training rows, "
            f"but in {dataset.name} none has over {int(levels.max())}; choose an attack on labels, such as label_flip"
        )
    return numeric
