"""Hypothesis 2, orthogonality: are gradient steps on clean data nearly orthogonal to where the model has to go?

With U the rows to forget, R the others, θ the minimiser on both and θ_R that on R alone, the wanted direction is
v = θ_R − θ. Source of the claim: Pawelczyk et al., ICLR 2025, arXiv:2406.17216, for linear regression. J is the loss
with its regulariser throughout (`unlearn_core.hypotheses.convex`), the one that training and unlearning minimise. Then
- (|R| ∇J_R + |U| ∇J_U) / n = 0 at θ, so −∇J_R is parallel to +∇J_U;
- J_R is convex, so ⟨−∇J_R, v⟩ ≥ J_R(θ) − J_R(θ_R) + decay/2 · ‖v‖² > 0: on all of R the cosine is never negative;
- where θ interpolates R (more weights than rows, no decay), ∇J_R = 0 and no step on R moves, while v need not be 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unlearn_core.hypotheses.convex import Problem, gradient


class Unlearning(NamedTuple):
    """θ (C, d) of the corrupted set, the rows x (n, d), y (n,) that are retained, and v = θ_R − θ."""

    problem: Problem
    theta: Tensor
    x: Tensor
    y: Tensor
    wanted: Tensor


def cosine(a: Tensor, b: Tensor) -> float:
    """Of two tensors of one shape, as vectors; NaN if either is zero."""
    return float((a * b).sum() / (a.norm() * b.norm())) if a.norm() > 0 and b.norm() > 0 else float("nan")


def full_cosine(at: Unlearning) -> float:
    """cos(−∇J_R, v) on all retained rows."""
    return cosine(-gradient(at.problem, at.theta, at.x, at.y), at.wanted)


def batch_cosines(at: Unlearning, *, batch_size: int, batches: int, random: torch.Generator) -> list[float]:
    """cos(−∇J_B, v) of so many random batches B of the retained rows."""
    found = []
    for _ in range(batches):
        rows = torch.randperm(len(at.x), generator=random)[:batch_size]
        found.append(cosine(-gradient(at.problem, at.theta, at.x[rows], at.y[rows]), at.wanted))
    return found


def path_cosines(
    at: Unlearning, steps: Sequence[int], *, batch_size: int | None, random: torch.Generator
) -> list[tuple[float, float]]:
    """How gradient descent from θ on the retained rows moves towards v.

    Args:
        at: The problem, θ, the rows and v.
        steps: Numbers of steps after which to look, increasing.
        batch_size: Rows drawn for each step; None for all. Steps have the size 1 / curvature, with which descent on all
            rows cannot overshoot and that on batches stays near the minimum.
        random: Draws the batches.

    Returns:
        After each of `steps`: the cosine with v of the whole way made so far, and its length as a multiple of ‖v‖.
    """
    theta, lr, found = at.theta, 1 / at.problem.curvature(at.x, batch_size), []
    for step in range(1, max(steps) + 1):
        rows = slice(None) if batch_size is None else torch.randint(len(at.x), (batch_size,), generator=random)
        theta = theta - lr * gradient(at.problem, theta, at.x[rows], at.y[rows])
        if step in steps:
            made = theta - at.theta
            found.append((cosine(made, at.wanted), float(made.norm() / at.wanted.norm())))
    return found


def residual_shares(at: Unlearning, ranks: Sequence[int]) -> list[float]:
    """The share of ‖v‖² outside the span of the top k right singular vectors of the retained rows' gradients.

    Args:
        at: The problem, θ, the rows and v.
        ranks: The values of k.

    Returns:
        A share for each k; 1 − k / (C·d) is that of a random direction.
    """
    residuals = at.problem.residuals(at.theta, at.x, at.y)
    rows = torch.einsum("nc,nd->ncd", residuals, at.x).flatten(1)
    vectors = torch.linalg.eigh(rows.T @ rows).eigenvectors.flip(1)
    energy = (vectors.T @ at.wanted.flatten()).square()
    inside = energy.cumsum(0) / energy.sum()
    return [1.0 if k == 0 else max(0.0, 1 - float(inside[min(k, len(inside)) - 1])) for k in ranks]
