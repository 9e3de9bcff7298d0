"""Hypothesis 2: the exact facts about gradients of retained rows and the wanted direction."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.convex_rows import objective, rows
from unlearn_core.hypotheses.convex import Softmax, Squared, gradient
from unlearn_core.hypotheses.orthogonality import (
    Unlearning,
    batch_cosines,
    cosine,
    full_cosine,
    path_cosines,
    residual_shares,
)

BOTH = pytest.mark.parametrize("problem", [Softmax(1e-2), Squared(1e-2)])
FORGOTTEN = 20


def scene(problem, seed=0, n=300, flip=True):
    """Unlearning of the first rows, whose labels are wrong, and these rows."""
    x, y = rows(n=n, seed=seed)
    y = torch.where(torch.arange(n) < FORGOTTEN, (y + 1) % 4, y) if flip else y
    corrupted = problem.fit(x, y, 4)
    retained = x[FORGOTTEN:], y[FORGOTTEN:]
    wanted = problem.fit(*retained, 4, near=corrupted).theta - corrupted.theta
    return Unlearning(problem, corrupted.theta, *retained, wanted), (x[:FORGOTTEN], y[:FORGOTTEN])


def draw(seed=0):
    return torch.Generator().manual_seed(seed)


@BOTH
def test_descent_on_the_retained_rows_is_ascent_on_the_others(problem):
    at, forgotten = scene(problem)
    down = -gradient(problem, at.theta, at.x, at.y)
    up = gradient(problem, at.theta, *forgotten)
    assert cosine(down, up) == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(len(at.x) * down, len(forgotten[1]) * up, rtol=1e-6, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 999), flip=st.booleans(), squared=st.booleans(), decay=st.sampled_from([1e-4, 1e-2, 1.0]))
def test_on_all_rows_the_cosine_is_never_negative(seed, flip, squared, decay):
    """⟨−∇J_R, v⟩ ≥ J_R(θ) − J_R(θ + v) + decay/2 · ‖v‖²."""
    problem = Squared(decay) if squared else Softmax(decay)
    at, _ = scene(problem, seed, n=100, flip=flip)
    gain = objective(problem, at.theta, at.x, at.y) - objective(problem, at.theta + at.wanted, at.x, at.y)
    inner = float((-gradient(problem, at.theta, at.x, at.y) * at.wanted).sum())
    assert inner >= float(gain) + decay / 2 * float(at.wanted.square().sum()) - 1e-12
    assert full_cosine(at) > 0


def test_where_the_model_interpolates_clean_rows_say_nothing():
    """Linear regression with more weights than rows: the hypothesis, exactly."""
    x, y = rows(n=20, d=60)
    problem = Squared(0)
    theta = problem.fit(x, y, 4).theta
    wanted = problem.fit(x[5:], y[5:], 4).theta - theta
    at = Unlearning(problem, theta, x[5:], y[5:], wanted)
    assert wanted.norm() > 0.1 * theta.norm()
    assert gradient(problem, theta, at.x, at.y).norm() < 1e-12
    ((_, length),) = path_cosines(at, [100], batch_size=None, random=draw())
    assert length < 1e-12


@BOTH
def test_a_batch_of_all_rows_has_the_full_cosine(problem):
    at, _ = scene(problem)
    cosines = batch_cosines(at, batch_size=len(at.x), batches=3, random=draw())
    assert cosines == pytest.approx([full_cosine(at)] * 3)


def test_small_batches_are_noisier_than_large_ones():
    """Their near-zero cosine is sampling noise: it goes to the full cosine with the size of the batch."""
    at, _ = scene(Softmax(1e-2))
    means = [torch.tensor(batch_cosines(at, batch_size=b, batches=200, random=draw())).mean() for b in (4, 32, 200)]
    assert means[0] < means[1] < means[2] < full_cosine(at)


@pytest.mark.slow
@BOTH
def test_descent_on_all_rows_ends_where_it_is_wanted(problem):
    at, _ = scene(problem)
    first, last = path_cosines(at, [1, 20_000], batch_size=None, random=draw())
    assert first[0] == pytest.approx(full_cosine(at))
    assert last == pytest.approx((1, 1), abs=1e-6)


def test_steps_on_batches_are_those_of_the_announced_size():
    at, _ = scene(Softmax(1e-2))
    random = draw(3)
    theta = at.theta
    for _ in range(2):
        drawn = torch.randint(len(at.x), (8,), generator=random)
        theta = theta - gradient(at.problem, theta, at.x[drawn], at.y[drawn]) / at.problem.curvature(at.x, 8)
    ((value, length),) = path_cosines(at, [2], batch_size=8, random=draw(3))
    assert value == pytest.approx(cosine(theta - at.theta, at.wanted))
    assert length == pytest.approx(float((theta - at.theta).norm() / at.wanted.norm()))


@BOTH
def test_small_batches_do_not_run_away(problem):
    at, _ = scene(problem)
    ((_, length),) = path_cosines(at, [2000], batch_size=2, random=draw())
    assert length < 20


@BOTH
def test_residual_shares_are_those_of_a_singular_value_decomposition(problem):
    at, _ = scene(problem)
    row_gradients = torch.stack(
        [torch.outer(r, x).flatten() for r, x in zip(problem.residuals(at.theta, at.x, at.y), at.x, strict=True)]
    )
    right = torch.linalg.svd(row_gradients, full_matrices=False).Vh
    v = at.wanted.flatten()
    for k, share in zip((0, 1, 5, 12), residual_shares(at, (0, 1, 5, 12)), strict=True):
        outside = v - right[:k].T @ (right[:k] @ v)
        assert share == pytest.approx(float(outside.square().sum() / v.square().sum()), abs=1e-8)


def test_a_full_basis_leaves_nothing_outside():
    at, _ = scene(Squared(1e-2))
    assert residual_shares(at, [at.wanted.numel(), 10**6]) == pytest.approx([0, 0], abs=1e-12)


def test_the_zero_vector_has_no_direction():
    assert math.isnan(cosine(torch.zeros(3), torch.ones(3)))
