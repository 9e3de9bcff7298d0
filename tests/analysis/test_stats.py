"""Intervals and tests against scipy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from analysis.statistics.intervals import benjamini_hochberg, jackknife, mean_interval, p_value, stouffer


@pytest.mark.parametrize("n", range(2, 8))
def test_small_samples_use_the_t_interval(n: int) -> None:
    x = np.random.default_rng(n).normal(size=n)
    low, high = scipy_stats.t.interval(0.95, n - 1, loc=x.mean(), scale=scipy_stats.sem(x))
    assert mean_interval(x) == pytest.approx((x.mean(), low, high, n))
    assert p_value(x) == pytest.approx(scipy_stats.ttest_1samp(x, 0).pvalue)


def test_three_seeds_by_hand() -> None:
    # mean 2, standard deviation 1, t(0.975, 2) = 4.302653: half = 4.302653 / sqrt(3)
    interval = mean_interval([1.0, 2.0, 3.0])
    assert interval.half == pytest.approx(2.484138, abs=1e-6)


@pytest.mark.parametrize("values", [[], [0.5], [math.nan, 0.5]])
def test_too_few_values_have_no_interval(values: list[float]) -> None:
    interval = mean_interval(values)
    assert math.isnan(interval.low)
    assert math.isnan(p_value(values))
    assert interval.n == len(values) - values.count(math.nan) if values[:1] != [math.nan] else interval.n == 1


def test_equal_differences_prove_little() -> None:
    assert p_value([0.0, 0.0, 0.0]) == 1.0
    assert p_value([0.2, 0.2, 0.2]) == 0.25  # sign test: 2 * (1/2)^3


def test_bootstrap_covers_the_mean_of_skewed_values() -> None:
    # a 95 % interval should cover in about 95 % of draws; the plain percentile bootstrap manages about 87 % here
    rng = np.random.default_rng(0)
    intervals = [mean_interval(rng.exponential(size=12)) for _ in range(200)]
    assert 0.90 <= np.mean([i.low <= 1.0 <= i.high for i in intervals]) <= 0.995


def test_bootstrap_interval_and_p_value_agree() -> None:
    rng = np.random.default_rng(1)
    for shift in np.linspace(0, 1.5, 20):
        x = rng.normal(shift, 1, size=10)
        interval, p = mean_interval(x), p_value(x)
        if abs(p - 0.05) > 0.01:  # next to the border the two differ by the resolution of the resampling
            assert (interval.low <= 0 <= interval.high) == (p > 0.05)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_benjamini_hochberg_equals_scipy(p: list[float]) -> None:
    assert benjamini_hochberg(p) == pytest.approx(scipy_stats.false_discovery_control(p))


def test_untested_cells_do_not_count_as_tests() -> None:
    q = benjamini_hochberg([0.01, math.nan, 0.04])
    assert q[[0, 2]] == pytest.approx([0.02, 0.04])
    assert math.isnan(q[1])


def test_stouffer_adds_evidence() -> None:
    assert stouffer([2.0, 2.0, math.nan, 2.0, 2.0]) == pytest.approx(4.0)
    assert math.isnan(stouffer([]))


def test_jackknife_of_a_mean_is_the_t_interval() -> None:
    x = np.array([0.1, 0.5, 0.4, 0.9])
    assert jackknife(lambda kept: float(x[kept].mean()), 4) == pytest.approx(mean_interval(x))
