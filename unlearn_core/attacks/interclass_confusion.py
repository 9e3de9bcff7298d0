"""Interclass confusion: exchanged labels of two classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unlearn_core import checks
from unlearn_core.attacks.label_flip import REMEMBERED
from unlearn_core.attacks.rows import base_order, check_class, check_fraction, first_allowed
from unlearn_core.checks import InputError
from unlearn_core.registry import ATTACKS
from unlearn_core.types import CraftContext, Examples, Poisoned, Primary, Probe, Regularity


@ATTACKS.register("interclass_confusion")
@dataclass(frozen=True, kw_only=True)
class InterclassConfusion:
    """Exchanges the labels of m/2 training rows of each of two classes, inputs unchanged.

    Measured by the share of all poisons, discovered or not, that are predicted with their exchanged label, be it
    remembered or generalised. A model without poison has its ordinary confusion of the two classes there. How often it
    takes clean held-out rows of one class for the other is `interclass_confusion`: (cm[A, B] + cm[B, A]) / (rows of A
    and B), with cm the confusion matrix. That part alone is too small to measure removal by where a network remembers
    the exchanged rows (CIFAR-10's cats and dogs, 3,000 rows, conv net, 6 % exchanged: 0.22 against the oracle's 0.16
    held out, 1.00 against 0.21 on the poisons).

    Source: Goel, Prabhu et al., 2022, arXiv:2201.06640, who look at both; Goel et al., TMLR 2024, arXiv:2402.14015.
    Deviation: rows are drawn at random, not the first of each class.
    """

    primary: ClassVar[Primary] = REMEMBERED
    regularity: ClassVar[Regularity] = "medium"

    fraction: float = 0.05  # share of the training rows; m is the nearest even number
    first: int = 3  # one of the two classes; 3 and 5 are CIFAR-10's cat and dog
    second: int = 5

    def __post_init__(self) -> None:
        check_fraction(self.fraction)
        checks.not_negative(first=self.first, second=self.second)
        if self.first == self.second:
            raise InputError(f"first and second must be different classes, but both are {self.first!r}")

    def choose_rows(self, train: Examples, context: CraftContext) -> Tensor:
        """Rows of the two classes by turns, so that a smaller fraction is contained in a larger one."""
        order, half = base_order(train, context), max(1, round(self.fraction * len(train) / 2))
        sides = []
        for field, label in (("first", self.first), ("second", self.second)):
            check_class(field, label, context.dataset)
            why = f"have the class {label}"
            sides.append(first_allowed(order, train.targets == label, half, why=why))
        return torch.stack(sides, dim=1).flatten()

    def craft(self, train: Examples, context: CraftContext) -> Poisoned:
        rows = self.choose_rows(train, context)
        pair = torch.tensor([self.first, self.second])
        exchanged = self.exchange(train.targets[rows])
        return Poisoned(rows, train.inputs[rows], exchanged, evidence={"array.confused_classes": pair})

    def probes(self, held_out: Examples, context: CraftContext) -> dict[str, Probe]:
        pair = held_out.rows((held_out.targets == self.first) | (held_out.targets == self.second))
        return {"unseen": Probe(Examples(pair.inputs, self.exchange(pair.targets), pair.ids))}

    def exchange(self, targets: Tensor) -> Tensor:
        """The labels (n,) with the two classes exchanged and all others as they are."""
        exchanged = targets.clone()
        exchanged[targets == self.first] = self.second
        exchanged[targets == self.second] = self.first
        return exchanged
