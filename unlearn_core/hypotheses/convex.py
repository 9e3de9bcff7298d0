"""Linear models whose training has one minimiser, found to machine precision: what retraining gives is then a fact.

Both problems minimise J(θ) = mean_i ℓ(θ x_i, y_i) + decay/2 · ‖θ‖² over θ (C, d), and the gradient of row i is
r_i ⊗ x_i with a residual r_i (C,) of its logits. Rows x (n, d) are float64 and end with a column of ones; the intercept
is regularised like every other weight, without which a softmax has no unique minimiser.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from unlearn_core import checks

TOLERANCE = 1e-10  # of the gradient's norm; differences of minimisers must not be noise of the solver
MOST_STEPS = 200
SLOW = 0.5  # a step that leaves more of the gradient than this needs a fresh Hessian
RESOLVED = 1e-11  # relative change of J below which its rounding shows
SMALLEST = 1e-12  # step size


class Minimum(NamedTuple):
    """A minimiser θ (C, d), and the Cholesky factor of a Hessian near it.

    Fits on nearly the same rows start from that factor and need no other.
    """

    theta: Tensor
    factor: Tensor | None = None


class Problem(Protocol):
    """What is minimised."""

    @property
    def decay(self) -> float: ...

    def residuals(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """r (n, C): the gradient of the loss of each row by its logits."""
        ...

    def losses(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """(n,) loss of each row, without the regulariser."""
        ...

    def curvature(self, x: Tensor, batch_size: int | None = None) -> float:
        """An upper bound of the largest eigenvalue of the Hessian anywhere.

        With `batch_size` the number that takes its place for steps on random batches: beyond 2 / it they may run
        away.
        """
        ...

    def fit(self, x: Tensor, y: Tensor, classes: int, near: Minimum | None = None) -> Minimum:
        """The minimiser; `near`: that of nearly the same rows, to start from."""
        ...


def with_ones(features: Tensor) -> Tensor:
    """Features (n, d) as rows (n, d + 1) float64, the last column for the intercept."""
    return functional.pad(features.double(), (0, 1), value=1.0)


def gradient(problem: Problem, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """∇J (C, d) on the rows x (n, d), y (n,)."""
    return problem.residuals(theta, x, y).T @ x / len(x) + problem.decay * theta


@dataclass(frozen=True)
class Softmax:
    """Multinomial logistic regression with cross-entropy in nats."""

    decay: float = 1e-3

    def __post_init__(self) -> None:
        checks.positive(decay=self.decay)

    def residuals(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return (x @ theta.T).softmax(1) - functional.one_hot(y, len(theta))

    def losses(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return functional.cross_entropy(x @ theta.T, y, reduction="none")

    def curvature(self, x: Tensor, batch_size: int | None = None) -> float:
        """diag(p) − p pᵀ ≼ ½ I (Böhning, Ann. Inst. Statist. Math. 44, 1992)."""
        return 0.5 * _largest(x, batch_size) + self.decay

    def fit(self, x: Tensor, y: Tensor, classes: int, near: Minimum | None = None) -> Minimum:
        """Newton steps until ‖∇J‖ < 1e-10, damped far from the minimum.

        A Hessian is kept as long as full steps with it halve the gradient.

        Raises:
            ArithmeticError: After 200 steps, as values that are not finite lead to.
        """
        theta, factor = near or Minimum(x.new_zeros(classes, x.shape[1]))
        slope = gradient(self, theta, x, y)
        for _ in range(MOST_STEPS):
            if slope.norm() < TOLERANCE:
                return Minimum(theta, factor)
            if not bool(slope.isfinite().all()):
                break
            if factor is not None:
                trial = theta - _newton(slope, factor)
                new = gradient(self, trial, x, y)
                if new.norm() < SLOW * slope.norm():
                    theta, slope = trial, new
                    continue
            factor = torch.linalg.cholesky(self.hessian(theta, x))
            theta = self._damped(theta, slope, _newton(slope, factor), (x, y))
            slope = gradient(self, theta, x, y)
        raise ArithmeticError(f"softmax regression did not converge: gradient norm {float(slope.norm()):.3g}")

    def _damped(self, theta: Tensor, slope: Tensor, step: Tensor, rows: tuple[Tensor, Tensor]) -> Tensor:
        """θ after the largest of the steps 1, ½, ¼, ... that lowers J as its slope promises (Armijo).

        The full step is made where the promise is less than J can resolve.

        Raises:
            ArithmeticError: If no step lowers J.
        """
        promised, size, start = float((slope * step).sum()), 1.0, self._objective(theta, *rows)
        if promised < RESOLVED * max(1.0, start):
            return theta - step
        while size > SMALLEST:
            if self._objective(theta - size * step, *rows) <= start - 1e-4 * size * promised:
                return theta - size * step
            size /= 2
        raise ArithmeticError("softmax regression: no step lowers the loss; are all features finite?")

    def _objective(self, theta: Tensor, x: Tensor, y: Tensor) -> float:
        return float(self.losses(theta, x, y).mean() + self.decay / 2 * theta.square().sum())

    def hessian(self, theta: Tensor, x: Tensor) -> Tensor:
        """(C·d, C·d) of J, in the order of θ.flatten()."""
        p, (classes, width) = (x @ theta.T).softmax(1), theta.shape
        whole = x.new_zeros(classes, width, classes, width)
        for a in range(classes):
            for b in range(a, classes):
                weight = p[:, a] * (float(a == b) - p[:, b])
                whole[a, :, b] = whole[b, :, a] = (x * weight[:, None]).T @ x / len(x)
        flat = whole.view(classes * width, classes * width)
        flat.diagonal().add_(self.decay)
        return flat


@dataclass(frozen=True)
class Squared:
    """Linear regression of the one-hot labels, loss ½‖logits − onehot‖²; with decay 0 the solution of least norm."""

    decay: float = 1e-3

    def __post_init__(self) -> None:
        checks.not_negative(decay=self.decay)

    def residuals(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return x @ theta.T - functional.one_hot(y, len(theta))

    def losses(self, theta: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return 0.5 * self.residuals(theta, x, y).square().sum(1)

    def curvature(self, x: Tensor, batch_size: int | None = None) -> float:
        return _largest(x, batch_size) + self.decay

    def fit(self, x: Tensor, y: Tensor, classes: int, near: Minimum | None = None) -> Minimum:
        """In closed form; `near` is not needed."""
        wanted = functional.one_hot(y, classes).to(x)
        if self.decay == 0:
            return Minimum((torch.linalg.pinv(x) @ wanted).T)
        normal = x.T @ x / len(x) + self.decay * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
        return Minimum(torch.linalg.solve(normal, x.T @ wanted / len(x)).T)


def _newton(slope: Tensor, factor: Tensor) -> Tensor:
    """H⁻¹ ∇J, from the Cholesky factor of H."""
    return torch.cholesky_solve(slope.reshape(-1, 1), factor).view_as(slope)


def _largest(x: Tensor, batch_size: int | None) -> float:
    """Largest eigenvalue of xᵀx / n, and for batches of b rows, which can be larger, plus max ‖x_i‖² / b.

    Source of the latter: Ma, Bassily, Belkin, ICML 2018, arXiv:1712.06559.
    """
    whole = float(torch.linalg.matrix_norm(x, 2) ** 2 / len(x))
    return whole if batch_size is None else whole + float(x.square().sum(1).max()) / batch_size
