"""Exact minimisers, against scikit-learn, autograd and closed forms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from torch.autograd.functional import hessian

from tests.core.convex_rows import objective, rows
from unlearn_core.checks import InputError
from unlearn_core.hypotheses.convex import MOST_STEPS, Minimum, Softmax, Squared, gradient, with_ones

BOTH = pytest.mark.parametrize("problem", [Softmax(0.01), Squared(0.01)])


def test_the_column_of_ones_comes_last():
    assert with_ones(torch.zeros(3, 2)).tolist() == [[0, 0, 1]] * 3
    assert with_ones(torch.zeros(3, 2)).dtype == torch.float64


@BOTH
def test_gradient_and_rows_are_those_of_the_objective(problem):
    x, y = rows()
    theta = torch.randn(4, x.shape[1], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(objective(problem, theta, x, y), theta)
    torch.testing.assert_close(gradient(problem, theta.detach(), x, y), slope)
    logits = (x @ theta.T).detach().requires_grad_()
    loss = (
        torch.nn.functional.cross_entropy(logits, y, reduction="sum")
        if isinstance(problem, Softmax)
        else 0.5 * (logits - torch.nn.functional.one_hot(y, 4)).square().sum()
    )
    torch.testing.assert_close(problem.residuals(theta.detach(), x, y), torch.autograd.grad(loss, logits)[0])


def test_hessian_is_that_of_the_objective():
    problem, (x, y) = Softmax(0.01), rows(n=50, d=3, classes=3)
    theta = torch.randn(3, 4, dtype=torch.float64)
    expected = hessian(lambda t: objective(problem, t, x, y), theta).view(12, 12)
    torch.testing.assert_close(problem.hessian(theta, x), expected)


def test_softmax_finds_what_scikit_learn_finds():
    problem, (x, y) = Softmax(0.01), rows()
    theta = problem.fit(x, y, 4).theta
    other = LogisticRegression(C=1 / (0.01 * len(x)), fit_intercept=False, tol=1e-10, solver="newton-cg", max_iter=1000)
    np.testing.assert_allclose(theta.numpy(), other.fit(x.numpy(), y.numpy()).coef_, atol=1e-7)


def test_squared_finds_what_scikit_learn_finds():
    problem, (x, y) = Squared(0.01), rows()
    other = Ridge(alpha=0.01 * len(x), fit_intercept=False, solver="svd")
    expected = other.fit(x.numpy(), np.eye(4)[y.numpy()]).coef_
    np.testing.assert_allclose(problem.fit(x, y, 4).theta.numpy(), expected, atol=1e-10)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 999), scale=st.sampled_from([0.01, 1.0, 30.0]), decay=st.sampled_from([1e-6, 1e-3, 1.0]))
def test_the_gradient_vanishes_at_every_minimum(seed, scale, decay):
    x, y = rows(n=60, seed=seed, scale=scale)
    problem = Softmax(decay)
    assert gradient(problem, problem.fit(x, y, 4).theta, x, y).norm() < 1e-9


@pytest.mark.parametrize("near", ["same", "other labels", "far"])
def test_where_a_fit_starts_does_not_matter(near):
    problem, (x, y) = Softmax(1e-3), rows()
    alone = problem.fit(x, y, 4)
    starts = {
        "same": alone,
        "other labels": problem.fit(x, (y + 1) % 4, 4),
        "far": Minimum(100 * torch.ones_like(alone.theta)),
    }
    torch.testing.assert_close(problem.fit(x, y, 4, near=starts[near]).theta, alone.theta, rtol=0, atol=1e-6)


def test_fits_on_nearly_the_same_rows_share_a_hessian():
    """This is what makes a thousand refits cheap; 3 % of the rows are missing in the second fit."""
    problem, (x, y) = Softmax(1e-2), rows(n=400)
    first = problem.fit(x, y, 4)
    second = problem.fit(x[12:], y[12:], 4, near=first)
    assert second.factor is first.factor, "written so that pytest does not print them"
    torch.testing.assert_close(second.theta, problem.fit(x[12:], y[12:], 4).theta, rtol=0, atol=1e-8)


def test_rows_far_away_do_not_stop_it():
    """As an attack on features without a box makes them: a thousand times as long as clean rows, wrong labels."""
    x, y = rows(n=300)
    x[:9, :-1] *= 1000
    problem = Softmax(1e-3)
    for near in (None, Softmax(1e-3).fit(x[9:], y[9:], 4)):
        theta = problem.fit(x, (y + (torch.arange(300) < 9)) % 4, 4, near=near).theta
        assert gradient(problem, theta, x, (y + (torch.arange(300) < 9)) % 4).norm() < 1e-9


@BOTH
def test_curvature_bounds_every_hessian(problem):
    x, y = rows(n=80, d=3, classes=3)
    for scale in (0.0, 1.0, 10.0):
        theta = scale * torch.randn(3, 4, dtype=torch.float64)
        whole = hessian(lambda t: objective(problem, t, x, y), theta).view(12, 12)
        assert torch.linalg.eigvalsh(whole)[-1] <= problem.curvature(x) * (1 + 1e-12)


def test_without_decay_squared_is_the_interpolation_of_least_norm():
    x, y = rows(n=10, d=30, classes=3)
    theta = Squared(0).fit(x, y, 3).theta
    assert Squared(0).residuals(theta, x, y).abs().max() < 1e-12
    away = torch.randn_like(theta)
    away = away - away @ torch.linalg.pinv(x) @ x  # changes no prediction
    assert (theta + away).norm() > theta.norm()


def test_bad_input():
    x, y = rows()
    with pytest.raises(InputError, match="decay must be a positive number"):
        Softmax(0)
    with pytest.raises(ArithmeticError):
        Softmax(1e-3).fit(x * torch.nan, y, 4)
    assert MOST_STEPS >= 50
