"""Uncertainty of shares against scipy and by exhaustive coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from unlearn_core.metrics import share_error, wilson_interval


@pytest.mark.parametrize("trials", [1, 2, 7, 40])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
def test_wilson_equals_scipy_for_every_count(trials, confidence):
    for successes in range(trials + 1):
        expected = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
        low, high = wilson_interval(successes=successes, trials=trials, confidence=confidence)
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
        assert 0 <= low <= successes / trials <= high <= 1


def test_wilson_covers_about_as_often_as_it_says():
    trials, counts = 50, np.arange(51)
    bounds = np.array([wilson_interval(successes=int(k), trials=trials) for k in counts])
    shares = np.linspace(0.05, 0.95, 91)
    inside = (bounds[:, :1] <= shares) & (shares <= bounds[:, 1:])
    coverage = (inside * stats.binom.pmf(counts[:, None], trials, shares)).sum(axis=0)  # exact, no simulation
    assert coverage.mean() == pytest.approx(0.95, abs=0.01)
    assert coverage.min() > 0.9


def test_share_error_closed_form():
    z2 = stats.norm.ppf(0.975) ** 2
    for trials in (1, 5, 200):
        for successes in range(trials + 1):
            share = (successes + z2 / 2) / (trials + z2)
            expected = math.sqrt(share * (1 - share) / (trials + z2))
            assert share_error(successes=successes, trials=trials) == pytest.approx(expected)


def test_share_error_never_vanishes_and_tends_to_the_plain_one():
    for trials in (1, 10, 1000):
        assert share_error(successes=0, trials=trials) > 0
        assert share_error(successes=0, trials=trials) == pytest.approx(share_error(successes=trials, trials=trials))
    plain = math.sqrt(0.3 * 0.7 / 1e6)
    assert share_error(successes=300_000, trials=1_000_000) == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize("function", [share_error, wilson_interval])
@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(function, successes, trials):
    with pytest.raises(ValueError, match="trials must be|successes must lie"):
        function(successes=successes, trials=trials)


@pytest.mark.parametrize("confidence", [0, 1, -0.5, float("nan")])
def test_impossible_confidence_is_refused(confidence):
    with pytest.raises(ValueError, match="confidence must"):
        wilson_interval(successes=1, trials=2, confidence=confidence)
