"""Which weights of a softmax classifier can poison make stationary?

The threshold tau, and the exact poison for two classes.

A victim that minimises mean cross-entropy + weight_decay/2 · ‖θ‖² over n clean and m = ε·n poisoned rows is stationary
at θ where G + ε·g_ν = 0, with G = g_μ + (1 + ε)·weight_decay·θ, g_μ the mean gradient of the clean rows and g_ν that of
the poison. For a head z = W h + b the inner product of a row's gradient with its own weights is

    ⟨W, ∂ℓ/∂W⟩ + ⟨b, ∂ℓ/∂b⟩ = Σ_k p_k z_k − z_y ≥ −L_C,   L_C = W₀((C − 1)/e),

where W₀ is Lambert's function: at the minimum all logits but the label's are equal (0), and z_y = s solves
s = 1 + (C − 1)·e^{−s}, so s = 1 + L_C. Summed over the poison, ⟨θ, G⟩ = −ε·⟨θ, g_ν⟩ ≤ ε·L_C: no poison of a share
below tau = max(0, ⟨θ, G⟩)/L_C makes θ stationary. Necessary for every network, by the same argument on its last layer.

Source: Lu, Kamath, Yu, ICML 2023, arXiv:2303.03592; the bias and the weight decay are added here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor
from torch.nn.functional import one_hot


class Head(NamedTuple):
    """Weights (C, d) and bias (C,) of a linear classifier, or a gradient with respect to them."""

    weight: Tensor
    bias: Tensor

    def dot(self, other: Head) -> float:
        return float((self.weight * other.weight).sum() + (self.bias * other.bias).sum())

    def scaled(self, factor: float) -> Head:
        return Head(self.weight * factor, self.bias * factor)

    def plus(self, other: Head) -> Head:
        return Head(self.weight + other.weight, self.bias + other.bias)

    def centred(self) -> Head:
        """The same predictions with class means of zero: only such weights can be stationary without weight decay."""
        return Head(self.weight - self.weight.mean(0), self.bias - self.bias.mean())

    def norm(self) -> float:
        return math.sqrt(self.dot(self))


def least_inner_product(classes: int) -> float:
    """L_C, by Newton's method on u·e^u = (C − 1)/e. Raises ValueError below two classes."""
    if classes < 2:
        raise ValueError(f"classes must be at least 2, but got {classes}")
    goal, u = (classes - 1) / math.e, math.log1p((classes - 1) / math.e)
    for _ in range(50):
        u -= (u * math.exp(u) - goal) / (math.exp(u) * (1 + u))
    return u


def mean_gradient(head: Head, features: Tensor, targets: Tensor, weights: Tensor | None = None) -> Head:
    """Σ_i w_i ∂ℓ_i/∂(W, b) of cross-entropy on features (n, d); the mean where there are no weights (n,)."""
    residual = (features @ head.weight.T + head.bias).softmax(1) - one_hot(targets, len(head.bias))
    residual = residual / len(targets) if weights is None else residual * weights[:, None]
    return Head(residual.T @ features, residual.sum(0))


def pull(head: Head, features: Tensor, targets: Tensor, *, epsilon: float, weight_decay: float) -> Head:
    """G: what the poison has to cancel for `head` to be stationary."""
    return mean_gradient(head, features, targets).plus(head.scaled((1 + epsilon) * weight_decay))


def threshold(head: Head, pulled: Head) -> float:
    """tau of a head with the pull G: the least poison share with which it can be stationary."""
    return max(0.0, head.dot(pulled)) / least_inner_product(len(head.bias))


def binary_point(weight: Tensor, gradient: Tensor, epsilon: float) -> tuple[Tensor, float]:
    """The point whose m copies with label 1 cancel the clean gradient of a binary logistic model without bias.

    The model is z = ⟨weight, x⟩ and the loss log(1 + exp(−y z)) with y = ±1. Exact, and since the loss is convex the
    victim returns.

    Args:
        weight: (d,) of the model.
        gradient: (d,) mean gradient of the clean rows.
        epsilon: Number of poison rows over the number of clean rows.

    Returns:
        The point x (d,) and its logit s, the lower root of s / (1 + e^s) = ⟨weight, gradient⟩ / ε: then
        x = gradient · (1 + e^s) / ε has the gradient −gradient / ε.

    Raises:
        ValueError: If ε < tau, where there is no root.
    """
    goal = float(weight @ gradient) / epsilon
    top = 1 + least_inner_product(2)  # s/(1 + e^s) rises up to here, from minus infinity to L_2
    if goal > least_inner_product(2):
        raise ValueError(f"epsilon must be at least {goal * epsilon / least_inner_product(2):.6g}, but got {epsilon!r}")
    low, high = min(-1.0, 2 * goal - 1), top
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if middle / (1 + math.exp(middle)) < goal else (low, middle)
    return gradient * (1 + math.exp(low)) / epsilon, low
