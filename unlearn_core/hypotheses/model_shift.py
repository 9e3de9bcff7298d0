"""Hypothesis 1, model shift: does removing poisons move the minimiser further than removing clean rows?

Source of the claim: Pawelczyk et al., ICLR 2025, arXiv:2406.17216, for softmax regression on frozen features in the L1
norm. Here minimisers are exact, and clean rows are removed from the same corrupted set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unlearn_core.checks import InputError
from unlearn_core.hypotheses.convex import Minimum, Problem

GROUPS = ("poison", "random", "matched")
"""What is removed: poisons, clean rows, or clean rows with the same labels (as trained on) as the poisons."""


class Corrupted(NamedTuple):
    """A corrupted training set as rows x (n, d) with a column of ones, labels y (n,) and the mask `poison` (n,)."""

    x: Tensor
    y: Tensor
    poison: Tensor
    classes: int

    def without(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """x and y of all rows but these."""
        kept = torch.ones_like(self.poison)
        kept[rows] = False
        return self.x[kept], self.y[kept]


class Shift(NamedTuple):
    """What removing `rows` rows, a share of as many as there are poisons, did to the minimiser.

    Attributes:
        l1: How far it moved, in the L1 norm.
        l2: How far it moved, in the L2 norm.
        loss: Mean loss of the removed rows at the corrupted minimiser.
        residual: Mean ‖r‖ of the removed rows there: a row that is fitted well pulls at nothing when it goes.
    """

    share: float
    rows: int
    l1: float
    l2: float
    loss: float
    residual: float


def removal_orders(data: Corrupted, random: torch.Generator) -> dict[str, Tensor]:
    """For each of GROUPS the (m,) rows in the order in which they are removed, so larger shares contain smaller ones.

    The i-th `matched` row has the label of the i-th poison.

    Raises:
        InputError: If a class has fewer clean rows than poisons.
    """
    poisons, clean = (_shuffled(mask.nonzero().squeeze(1), random) for mask in (data.poison, ~data.poison))
    if len(clean) < len(poisons):
        raise InputError(f"fraction gives {len(poisons)} poisons but {len(clean)} clean rows to compare with; lower it")
    pools = {label: iter(clean[data.y[clean] == label].tolist()) for label in range(data.classes)}
    matched = [next(pools[label], None) for label in data.y[poisons].tolist()]
    if None in matched:
        label = int(data.y[poisons[matched.index(None)]])
        raise InputError(f"class {label} has fewer clean rows than poisons, none to compare with; lower fraction")
    return {"poison": poisons, "random": clean[: len(poisons)], "matched": torch.tensor(matched)}


def shifts(
    problem: Problem, data: Corrupted, corrupted: Minimum, order: Tensor, shares: Sequence[float]
) -> Iterator[Shift]:
    """One Shift for each share in (0, 1] of the rows in `order`; at least one row is removed."""
    for share in shares:
        rows = order[: max(1, round(share * len(order)))]
        moved = problem.fit(*data.without(rows), data.classes, near=corrupted).theta - corrupted.theta
        at = corrupted.theta, data.x[rows], data.y[rows]
        loss, residual = problem.losses(*at).mean(), problem.residuals(*at).norm(dim=1).mean()
        yield Shift(share, len(rows), float(moved.abs().sum()), float(moved.norm()), float(loss), float(residual))


def _shuffled(rows: Tensor, random: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=random)]
