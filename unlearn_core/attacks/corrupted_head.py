"""Weights that an indiscriminate attacker wants the victim to end at: bad ones that poison can make stationary."""

from __future__ import annotations

import torch
from torch import Tensor

from unlearn_core.attacks.reachability import Head, mean_gradient, pull, threshold
from unlearn_core.checks import InputError

BATCH = 64
NEWTON_STEPS = 100
SMALLEST = 1e-6  # scale of the weights below which they say nothing any more


def gradpc(head: Head, features: Tensor, targets: Tensor, *, radius: float, random: torch.Generator) -> Head:
    """Gradient ascent on the loss by one epoch of normalised unit steps inside a ball around `head`.

    Args:
        head: Where to start.
        features: (n, d) what the layer reads.
        targets: (n,) class indices.
        radius: L2 radius of the ball, over weights and bias.
        random: Draws the order of the rows.

    Source: GradPC, as used by Lu, Kamath, Yu, ICML 2023, arXiv:2303.03592.
    """
    moved = Head(torch.zeros_like(head.weight), torch.zeros_like(head.bias))
    for rows in torch.randperm(len(targets), generator=random).split(BATCH):
        gradient = mean_gradient(head.plus(moved), features[rows], targets[rows])
        moved = moved.plus(gradient.scaled(1 / max(gradient.norm(), 1e-300)))
        moved = moved.scaled(min(1.0, radius / max(moved.norm(), 1e-300)))
    return head.plus(moved)


def with_stationary_bias(head: Head, features: Tensor, targets: Tensor, *, decay: float) -> Head:
    """`head` with the bias at which the clean loss (with `decay`/2 · ‖b‖²) is stationary in it, by damped Newton steps.

    Poison can hardly move a bias: its part of the stationarity condition is bounded by 2ε, which bad weights violate.
    """
    classes, bias = len(head.bias), head.bias
    scores = features @ head.weight.T
    share = torch.bincount(targets, minlength=classes).to(bias) / len(targets)
    ridge = (decay + 1e-9) * torch.eye(classes, dtype=bias.dtype, device=bias.device)
    for _ in range(NEWTON_STEPS):
        p = (scores + bias).softmax(1)
        gradient = p.mean(0) - share + decay * bias
        curvature = torch.diag(p.mean(0)) - p.T @ p / len(p) + ridge
        step = torch.linalg.solve(curvature, gradient)
        bias = bias - step * min(1.0, 2.0 / max(float(step.abs().max()), 1e-300))
        if float(gradient.abs().max()) < 1e-14:
            break
    return Head(head.weight, bias - bias.mean())


def reachable(
    head: Head, features: Tensor, targets: Tensor, *, epsilon: float, weight_decay: float, reach: float
) -> tuple[Head, float]:
    """`head` shrunk until its threshold tau is at most reach · epsilon, and that tau; unchanged where it is already.

    Accuracy depends on the direction of the weights alone, tau on their scale: it falls to zero with it.

    Raises:
        InputError: If no scale above 1e-6 will do.
    """
    decay = (1 + epsilon) * weight_decay
    scale, factor = 1.0, 0.9
    while scale > SMALLEST:
        shrunk = Head(head.weight * scale, head.bias * scale).centred()
        shrunk = with_stationary_bias(shrunk, features, targets, decay=decay)
        tau = threshold(shrunk, pull(shrunk, features, targets, epsilon=epsilon, weight_decay=weight_decay))
        if tau <= reach * epsilon:
            return shrunk, tau
        scale *= factor
    raise InputError(
        f"no scale of the target weights can be reached with a poison share of {epsilon:g}; raise fraction"
    )
