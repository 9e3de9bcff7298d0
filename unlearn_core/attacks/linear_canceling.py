"""Gradient canceling for a linear head without a box, solved to machine precision at a cost that knows no n and m.

Poison features x_j (K of them, of weight w_j = copies_j / n) have to satisfy Σ_j w_j r_j [x_j; 1]ᵀ = −[G_W; G_b] with
r_j = softmax(W x_j + b) − e_{y_j}. Split x_j = V q_j + u_j into the row space of W (basis V) and its complement, which
the logits do not see: the conditions on q are small and non-linear (L-BFGS, which stops at about the square root of the
machine precision, then Gauss-Newton steps), those on u linear (least squares).
Derived from the stationarity condition of Lu, Kamath, Yu, ICML 2023, arXiv:2303.03592.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jacrev

from unlearn_core.attacks.reachability import Head, mean_gradient

POINTS = 40  # distinct points; enough for ten classes
RESTARTS = 5
GOAL = 1e-10  # of the relative residual, at which no restart is needed
NEWTON_STEPS = 20


class Canceling(NamedTuple):
    """Features (m, d) and labels (m,) of the poison, and ‖G + ε·g_ν‖ / ‖G‖."""

    features: Tensor
    targets: Tensor
    residual: float


def cancel(head: Head, pulled: Head, *, count: int, rows: int, random: torch.Generator) -> Canceling:
    """`count` poison rows beside `rows` clean ones whose gradient cancels `pulled`, as far as it can be.

    Args:
        head: The layer, float64, centred (see Head.centred).
        pulled: The gradient to cancel, float64, centred.
        count: Number of poison rows.
        rows: Number of clean rows.
        random: A stream on the CPU.
    """
    classes, points = len(head.bias), min(POINTS, count)
    targets = torch.arange(points) % classes
    copies = torch.full((points,), count // points) + (torch.arange(points) < count % points)
    weights = copies.double() / rows
    best: tuple[float, Tensor] | None = None
    for _ in range(RESTARTS):
        features = _solve(head, pulled, targets, weights, random)
        residual = residual_of(head, pulled, features, targets, weights)
        if best is None or residual < best[0]:
            best = residual, features
        if best[0] < GOAL:
            break
    assert best is not None
    return Canceling(best[1].repeat_interleave(copies, 0), targets.repeat_interleave(copies), best[0])


def residual_of(head: Head, pulled: Head, features: Tensor, targets: Tensor, weights: Tensor) -> float:
    """‖G + Σ_j w_j ∂ℓ_j‖ / ‖G‖."""
    return pulled.plus(mean_gradient(head, features, targets, weights)).norm() / pulled.norm()


def _solve(head: Head, pulled: Head, targets: Tensor, weights: Tensor, random: torch.Generator) -> Tensor:
    left, values, basis = _svd(head.weight)
    logits = _seen(head.bias, pulled, (targets, weights), left, (pulled.weight @ basis) * values, random)
    residual = _residuals(logits @ left.T + head.bias, targets) * weights[:, None]
    unseen = pulled.weight - pulled.weight @ basis @ basis.T
    return (logits / values) @ basis.T - torch.linalg.pinv(residual.T) @ unseen


def _seen(
    bias: Tensor, pulled: Head, points: tuple[Tensor, Tensor], left: Tensor, goal: Tensor, random: torch.Generator
) -> Tensor:
    """(K, r) logits of the points in the basis `left` (C, r), from the conditions that the logits decide.

    Σ_j w_j r_j a_jᵀ = −goal and Σ_j w_j r_j = −G_b. In logits, not in features: the scale of W falls out.
    """
    targets, weights = points
    a = torch.randn(len(targets), left.shape[1], dtype=goal.dtype, generator=random).requires_grad_()
    search = torch.optim.LBFGS(
        [a], max_iter=500, history_size=50, tolerance_grad=1e-15, tolerance_change=1e-20, line_search_fn="strong_wolfe"
    )

    def missed(a: Tensor) -> Tensor:
        residual = _residuals(a @ left.T + bias, targets) * weights[:, None]
        return torch.cat([(residual.T @ a + goal).flatten(), residual.sum(0) + pulled.bias]) / weights.sum()

    def closure() -> Tensor:
        search.zero_grad()
        loss = missed(a).square().sum()
        loss.backward()
        return loss

    search.step(closure)
    return _polished(a.detach(), missed)


def _polished(a: Tensor, missed: Callable[[Tensor], Tensor]) -> Tensor:
    """`a` after Gauss-Newton steps of least length, as long as they halve what is missed."""
    left = missed(a)
    for _ in range(NEWTON_STEPS):
        slope = jacrev(missed)(a).flatten(1)
        step = torch.linalg.lstsq(slope, left[:, None], driver="gelsd").solution  # conditions depend on each other
        moved = a - step.view_as(a)
        after = missed(moved)
        if not float(after.norm()) < 0.5 * float(left.norm()):
            break
        a, left = moved, after
    return a


def _residuals(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.softmax(1) - torch.nn.functional.one_hot(targets, logits.shape[1])


def _svd(weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """weight (C, d) = left (C, r) · diag(values) · basisᵀ (r, d), without the directions that it does not have."""
    left, values, rows = torch.linalg.svd(weight, full_matrices=False)
    kept = values > values[0] * 1e-10
    return left[:, kept], values[kept], rows[kept].T
