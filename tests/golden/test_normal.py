"""Normal tails and the KS distance against scipy."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from unlearn_core.metrics import ks_distance
from unlearn_core.metrics.normal import quantile, two_sided_tail, upper_tail


@pytest.mark.parametrize("z", [-40, -8, -2.5, -0.1, 0, 0.1, 1, 2.326, 6, 20, 37])
def test_tails_equal_scipy_far_out(z):
    assert upper_tail(z) == pytest.approx(stats.norm.sf(z), rel=1e-12)
    assert two_sided_tail(z) == pytest.approx(2 * stats.norm.sf(abs(z)), rel=1e-12)


@pytest.mark.parametrize("probability", [1e-12, 0.01, 0.3, 0.5, 0.975, 0.99, 1 - 1e-9])
def test_quantile_equals_scipy_and_inverts_the_tail(probability):
    assert quantile(probability) == pytest.approx(stats.norm.ppf(probability), rel=1e-9, abs=1e-12)
    assert upper_tail(quantile(probability)) == pytest.approx(1 - probability, rel=1e-6)


@given(st.lists(st.floats(-6, 6), min_size=1, max_size=40))
def test_ks_distance_equals_scipy(values):
    expected = stats.kstest(np.array(values), "norm", method="asymp").statistic
    assert ks_distance(np.array(values)) == pytest.approx(expected, abs=1e-12)


def test_ks_distance_closed_forms():
    assert ks_distance(np.array([0.0])) == 0.5
    assert ks_distance(np.array([-50.0, -50.0])) == pytest.approx(1)
    n = 8  # the quantiles (2 i + 1) / 2 n are as near to the normal as n points can be: 1 / 2 n
    best = np.array([quantile((2 * i + 1) / (2 * n)) for i in range(n)])
    assert ks_distance(best) == pytest.approx(1 / (2 * n))


def test_expected_ks_distance_under_the_null():
    rng = np.random.default_rng(3)
    distances = [ks_distance(rng.standard_normal(400)) * 20 for _ in range(200)]
    # mean of the Kolmogorov distribution: sqrt(pi / 2) log 2 = 0.869; its sd 0.26 gives 0.018 over 200 draws
    assert np.mean(distances) == pytest.approx(math.sqrt(math.pi / 2) * math.log(2), abs=0.07)


@pytest.mark.parametrize("bad", [np.array([]), np.array([np.nan]), np.zeros((2, 2))])
def test_invalid_sample_is_named(bad):
    with pytest.raises(ValueError, match="^sample must"):
        ks_distance(bad)
