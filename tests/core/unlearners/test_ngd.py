"""Noise laws of noisy gradient descent.

A loss without gradient leaves the noise alone; weight decay h on such a loss is a quadratic of curvature h.
"""

import math

import pytest
import torch
from torch import nn

from tests.contracts.tiny import MODELS, RETAIN, Forbidden, examples, model, run, same_state, weights
from tests.core.unlearners.quadratic import A, H, Point, rows
from unlearn_core.scenarios.scenario import Split
from unlearn_core.unlearners import GD, NGD

SIZE = 20_000  # parameters: the relative error of a variance is sqrt(2 / SIZE) = 1 %
DATA = Split(examples(4, shape=(1,), classes=2), Forbidden())


class Flat(nn.Module):
    """A model whose outputs, hence gradients, do not depend on its many parameters."""

    def __init__(self, start=0.0):
        super().__init__()
        self.values = nn.Parameter(torch.full((SIZE,), start))

    def forward(self, inputs):
        return inputs.new_zeros(len(inputs), 2) + 0 * self.values.sum()


def spread(steps, *, start=0.0, **settings):
    """Values of the parameters after `steps` steps, in float64."""
    method = NGD(**dict(epochs=steps, batch_size=4, weight_decay=0.0) | settings)
    run_ = run(method, Flat(start), DATA, seed=5)
    assert run_.rungs[0].steps == steps
    return weights(run_.final).double()


@pytest.mark.parametrize("momentum", [0.0, 0.9])  # the noise enters after the buffer, so momentum does not matter
@pytest.mark.parametrize(
    ("mode", "law"),
    [("grad", lambda eta, sigma: eta**2 * sigma**2), ("langevin", lambda eta, sigma: 2 * eta * sigma**2)],
)
def test_variance_grows_by_the_law_of_its_mode(mode, law, momentum):
    eta, sigma, steps = 0.05, 0.3, 30
    values = spread(steps, lr=eta, sigma=sigma, noise_mode=mode, momentum=momentum)
    expected = steps * law(eta, sigma)
    assert values.var().item() == pytest.approx(expected, rel=5 * math.sqrt(2 / SIZE))
    assert abs(values.mean().item()) < 5 * math.sqrt(expected / SIZE)


def test_noise_follows_the_schedule():
    """`grad`: variance Σ η_t² σ², here with η_t = η (1 − t/T)."""
    eta, sigma, steps = 0.05, 0.3, 20
    values = spread(steps, lr=eta, sigma=sigma, schedule="linear", momentum=0.0)
    expected = sum((eta * (1 - t / steps)) ** 2 for t in range(steps)) * sigma**2
    assert values.var().item() == pytest.approx(expected, rel=5 * math.sqrt(2 / SIZE))


def test_langevin_variance_on_a_quadratic_is_stationary():
    """From the stationary variance v = 2ησ²/(1 − (1 − ηh)²), one law for every number of steps."""
    eta, sigma, h = 0.2, 0.3, 1.5
    stationary = 2 * eta * sigma**2 / (1 - (1 - eta * h) ** 2)
    for steps in (1, 3, 40):
        values = spread(steps, lr=eta, sigma=sigma, noise_mode="langevin", weight_decay=h, momentum=0.0)
        expected = stationary * (1 - (1 - eta * h) ** (2 * steps))
        assert values.var().item() == pytest.approx(expected, rel=5 * math.sqrt(2 / SIZE))


def test_successive_and_seeded_noises_are_independent():
    first, second = (spread(n, lr=1.0, sigma=1.0, momentum=0.0) for n in (1, 2))
    later = second - first  # the second step's noise
    assert abs((first * later).mean().item()) < 5 / math.sqrt(SIZE)
    other = weights(run(NGD(lr=1.0, sigma=1.0, epochs=1), Flat(), DATA, seed=6).final).double()
    assert abs((first * other).mean().item()) < 5 / math.sqrt(SIZE)


@pytest.mark.parametrize("net", MODELS)
@pytest.mark.parametrize("mode", ["grad", "langevin"])
def test_no_noise_is_gd_bit_for_bit(net, mode):
    settings = dict(lr=0.05, epochs=2, batch_size=16)
    data = Split(RETAIN, Forbidden())
    noiseless = run(NGD(**settings, sigma=0.0, noise_mode=mode), model(net), data).final
    assert same_state(noiseless, run(GD(**settings), model(net), data).final)


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_projection_ends_in_the_ball(start):
    radius = 3.0
    values = spread(3, start=start, lr=1.0, sigma=0.2, radius=radius, momentum=0.0)
    assert values.norm().item() == pytest.approx(radius, rel=1e-5)  # noise alone has norm 0.2 sqrt(SIZE) = 28
    free, wide = (spread(3, lr=1.0, sigma=0.2, radius=r, momentum=0.0) for r in (None, 1e6))
    assert torch.equal(free, wide)


def test_projected_descent_finds_the_nearest_point_of_the_ball(quadratic_loss):
    """Without noise and with the minimum outside: the fixed point is θ = Π(θ − η ∇L)."""
    method = NGD(lr=0.1, epochs=200, batch_size=4, sigma=0.0, radius=0.5, momentum=0.0, weight_decay=0.0)
    theta = run(method, Point(), Split(rows(0), rows(1))).final.theta
    step = theta - 0.1 * H[0] @ (theta - A[0])
    assert theta.norm().item() == pytest.approx(0.5, rel=1e-5)
    torch.testing.assert_close(theta, 0.5 * step / step.norm(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("steps", "noisy"), [(30, 27), (25, 23), (9, 9)])
def test_burn_down_leaves_the_last_tenth_of_the_steps_without_noise(steps, noisy):
    """No other step is touched: without momentum, the end is that of a run of so many steps fewer, bit for bit."""
    eta, sigma = 0.05, 0.3
    values = spread(steps, lr=eta, sigma=sigma, momentum=0.0, burn_down=True)
    assert torch.equal(values, spread(noisy, lr=eta, sigma=sigma, momentum=0.0))
    assert values.var().item() == pytest.approx(noisy * eta**2 * sigma**2, rel=5 * math.sqrt(2 / SIZE))
    assert torch.equal(values, spread(steps, lr=eta, sigma=sigma, momentum=0.0)) == (noisy == steps)


def test_a_run_stopped_before_its_last_tenth_knows_no_burn_down():
    """The tenth is of the method's own steps, so that any budget gives a state of one and the same run."""
    settings = dict(lr=0.05, sigma=0.3, epochs=10, batch_size=4)
    full = run(NGD(**settings), model("mlp"), Split(RETAIN, Forbidden())).rungs[0].flops
    for share, same in ((0.85, True), (1.0, False)):
        ends = [
            run(NGD(**settings, burn_down=quiet), model("mlp"), Split(RETAIN, Forbidden()), budgets=[share * full])
            for quiet in (False, True)
        ]
        assert same_state(*(end.final for end in ends)) == same
