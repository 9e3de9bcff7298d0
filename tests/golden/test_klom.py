"""KLOM against numpy's histograms, closed forms, and its known noise floor."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from unlearn_core.metrics.klom import BINS, EMPTY, margin_divergence
from unlearn_core.registry import METRICS

CAP = math.log(1 / EMPTY)


def normal(models, points, *, seed=0, mean=0.0, sd=1.0):
    return np.random.default_rng(seed).normal(mean, sd, (models, points))


def slow(oracle, unlearned):
    """One point at a time, from numpy's histograms, whose last bin is closed."""
    values = []
    for p, q in zip(np.clip(oracle, -100, 100).T, np.clip(unlearned, -100, 100).T, strict=True):
        edges = np.linspace(min(p.min(), q.min()), max(p.max(), q.max()), BINS + 1)
        p, q = (np.histogram(side, edges)[0] / side.size for side in (p, q))
        values.append(sum(a * math.log(a / max(b, EMPTY)) for a, b in zip(p, q, strict=True) if a > 0))
    return values


@pytest.mark.parametrize(("models", "others"), [(8, 8), (30, 30), (100, 100), (20, 50)])
@pytest.mark.parametrize("mean", [0, 0.7, 90])
def test_equals_histograms_of_single_points(models, others, mean):
    oracle, unlearned = normal(models, 40), normal(others, 40, seed=1, mean=mean, sd=20.0)
    assert margin_divergence(oracle=oracle, unlearned=unlearned) == pytest.approx(slow(oracle, unlearned), abs=1e-12)


def test_the_same_models_twice_give_zero():
    same = normal(50, 30)
    assert margin_divergence(oracle=same, unlearned=same).tolist() == [0] * 30
    assert margin_divergence(oracle=same, unlearned=same[::-1]).tolist() == [0] * 30
    constant = np.full((8, 2), 3.0)
    assert margin_divergence(oracle=constant, unlearned=constant).tolist() == [0, 0]


def test_disjoint_supports_give_the_cap():
    apart = margin_divergence(oracle=np.zeros((8, 3)), unlearned=np.ones((8, 3)))
    assert apart == pytest.approx([CAP] * 3, rel=1e-12)


@pytest.mark.parametrize(("models", "floor"), [(20, 3.0), (50, 0.92), (100, 0.36), (200, 0.15), (500, 0.05)])
def test_the_noise_floor_of_equal_distributions(models, floor):
    """The values were measured independently, to the digits given."""
    found = margin_divergence(oracle=normal(models, 2000), unlearned=normal(models, 2000, seed=1)).mean()
    assert found == pytest.approx(floor, rel=0.05, abs=0.005)


@pytest.mark.parametrize(("mean", "sd"), [(1.0, 1.0), (0.0, 1.5)])
def test_many_models_give_the_divergence_of_the_two_normals(mean, sd):
    """Bins lose at most a little; log sd + (1 + mean^2) / (2 sd^2) - 1/2 is the exact KL(N(0, 1) || N(mean, sd^2))."""
    exact = math.log(sd) + (1 + mean**2) / (2 * sd**2) - 0.5
    found = margin_divergence(oracle=normal(20_000, 20), unlearned=normal(20_000, 20, seed=1, mean=mean, sd=sd)).mean()
    assert exact * 0.94 < found < exact * 1.02


def test_the_largest_margin_is_counted():
    """In half-open bins it would be dropped, and the only model that differs with it."""
    unlearned = np.zeros((10, 1))
    oracle = np.array([[0.0]] * 9 + [[1.0]])
    expected = 0.9 * math.log(0.9) + 0.1 * math.log(0.1 / EMPTY)
    assert margin_divergence(oracle=oracle, unlearned=unlearned) == pytest.approx([expected])


def test_it_asks_where_the_oracle_is_and_the_unlearned_model_is_not():
    wide, narrow = norm.ppf(np.linspace(0.01, 0.99, 99))[:, None], np.linspace(-0.05, 0.05, 99)[:, None]
    there = margin_divergence(oracle=wide, unlearned=narrow)[0]
    back = margin_divergence(oracle=narrow, unlearned=wide)[0]
    assert there > 5 > 4 > back > 1


@given(st.integers(0, 1000), st.floats(0.1, 5), st.floats(-20, 20))
def test_scale_order_and_shift_do_not_matter(seed, scale, shift):
    oracle, unlearned = np.random.default_rng(seed).integers(-8, 9, (2, 12, 5)) + 0.3125  # far from edges of bins
    found = margin_divergence(oracle=oracle, unlearned=unlearned)
    again = margin_divergence(oracle=oracle[::-1], unlearned=np.roll(unlearned, 3, axis=0))
    assert np.array_equal(found, again)
    fine_oracle, fine_unlearned = (
        side + 0.01 * np.random.default_rng(seed).random((12, 5)) for side in (oracle, unlearned)
    )
    moved = margin_divergence(oracle=scale * fine_oracle + shift, unlearned=scale * fine_unlearned + shift)
    same = margin_divergence(oracle=fine_oracle, unlearned=fine_unlearned)
    assert np.median(np.abs(moved - same)) < 1e-9
    assert np.all((found >= -1e-12) & (found <= CAP))


def test_margins_beyond_the_clip_are_one():
    far, farther = np.full((8, 1), 150.0), np.full((8, 1), 4000.0)
    assert margin_divergence(oracle=far, unlearned=farther).tolist() == [0]


def test_the_floor_is_subtracted():
    rng = np.random.default_rng(3)
    arrays = {
        "oracle_test_margins": rng.normal(0, 1, (20, 300)),
        "second_oracle_test_margins": rng.normal(0, 1, (20, 300)),
    }
    values = METRICS.get("klom_test")(arrays | {"unlearned_test_margins": rng.normal(0, 1, (20, 300))})
    assert values["klom_test"] > 2.5 < values["klom_test_floor"]
    assert abs(values["klom_test_excess"]) < 4 * values["klom_test_excess_se"] < 0.5
    assert values["klom_test_excess"] == pytest.approx(values["klom_test"] - values["klom_test_floor"])
    assert values["klom_test_p95"] > values["klom_test"]
    floor = METRICS.get("klom_test")(arrays | {"unlearned_test_margins": arrays["second_oracle_test_margins"]})
    assert (floor["klom_test_excess"], floor["klom_test_p95"]) == (0, floor["klom_test_p95_floor"])
    shifted = METRICS.get("klom_test")(arrays | {"unlearned_test_margins": rng.normal(2, 1, (20, 300))})
    assert shifted["klom_test_excess"] > 2


def test_the_95th_percentile_is_over_points():
    oracle = np.zeros((8, 100))
    unlearned = np.where(np.arange(100) < 10, 1.0, 0.0) * np.ones((8, 1))  # ten points of a hundred are told apart
    arrays = {f"{who}_forget_margins": oracle for who in ("oracle", "second_oracle")}
    values = METRICS.get("klom_forget")(arrays | {"unlearned_forget_margins": unlearned})
    assert values["klom_forget_p95"] == pytest.approx(CAP)
    assert values["klom_forget"] == pytest.approx(CAP / 10)


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((0, 3)), np.full((2, 3), np.nan)])
@pytest.mark.parametrize("side", ["oracle", "unlearned"])
def test_invalid_margins_are_named(bad, side):
    with pytest.raises(ValueError, match=f"^{side} must"):
        margin_divergence(**{"oracle": np.zeros((2, 3)), "unlearned": np.zeros((2, 3))} | {side: bad})
    with pytest.raises(ValueError, match="must have the same points"):
        margin_divergence(**{"oracle": np.zeros((2, 3)), "unlearned": np.zeros((2, 3))} | {side: np.zeros((2, 4))})
