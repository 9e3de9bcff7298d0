"""Gaussian score: closed forms, its null, its power, and that it is oriented as documented."""

import math

import numpy as np
import pytest
from scipy import stats

from unlearn_core.metrics import compute_all


def measure(scores, fresh=None, dropped=0):
    scores = np.asarray(scores, float)
    fresh = np.zeros((1, scores.size)) if fresh is None else fresh
    return compute_all({"noise_scores": scores, "fresh_noise_scores": fresh, "noise_dropped": np.array(dropped)})


def test_closed_form_of_four_scores():
    values = measure([0.0, 1.0, 2.0, 3.0])
    assert values["gaussian_score"] == 1.5
    assert values["gaussian_score_se"] == pytest.approx(math.sqrt(5 / 3) / 2)  # sum of squares 5, over n - 1 = 3
    assert values["gaussian_z"] == 3.0
    assert values["gaussian_p"] == pytest.approx(stats.norm.sf(3))
    assert values["gaussian_p_two_sided"] == pytest.approx(2 * stats.norm.sf(3))
    assert values["gaussian_tpr_exact"] == 0.25
    assert values["gaussian_dropped"] == 0


def test_overshooting_shows_on_the_other_side():
    left, over = measure([1.0, 2.0, 3.0]), measure([-1.0, -2.0, -3.0])
    assert over["gaussian_p"] == pytest.approx(1 - left["gaussian_p"])
    assert over["gaussian_p_two_sided"] == left["gaussian_p_two_sided"] < 0.01


def test_tpr_exact_takes_scores_beyond_the_quantile_only():
    threshold = stats.norm.ppf(0.99)
    assert measure([threshold - 1e-9, threshold + 1e-9, 0.0, 5.0])["gaussian_tpr_exact"] == 0.5


def test_the_curve_counts_scores_beyond_each_quantile():
    scores = np.random.default_rng(3).normal(0.7, 1.2, 500)
    values = measure(scores)
    for rate in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        assert values[f"gaussian_roc_{rate}"] == np.mean(stats.norm.sf(scores) < rate)
    assert values["gaussian_roc_0.01"] == values["gaussian_tpr_exact"]


def test_tpr_fresh_uses_all_fresh_draws():
    fresh = np.arange(200.0).reshape(50, 4)  # 200 null scores 0..199: two may be misjudged, so the bar is 197
    assert measure([196.0, 197.0, 197.5, 300.0], fresh)["gaussian_tpr_fresh"] == 0.5


def test_null_columns_describe_the_fresh_scores():
    fresh = np.random.default_rng(0).standard_normal((5, 40))
    values = measure(np.zeros(40), fresh)
    assert values["gaussian_null_mean"] == pytest.approx(fresh.mean())
    assert values["gaussian_null_ks"] == pytest.approx(stats.kstest(fresh.ravel(), "norm").statistic)


def planted(rng, rows, dim, eps, pull):
    """S of gradients that point away from the noise by `pull`: g = h - pull * xi, as memorised noise leaves it."""
    noise = eps * rng.standard_normal((rows, dim))
    gradient = rng.standard_normal((rows, dim)) - pull * noise
    return -np.sum(gradient * noise, axis=1) / (eps * np.linalg.norm(gradient, axis=1))


def test_null_is_exactly_standard_normal():
    rng = np.random.default_rng(1)
    runs = [measure(planted(rng, rows=50, dim=6, eps=0.4, pull=0.0)) for _ in range(400)]
    assert stats.kstest([run["gaussian_z"] for run in runs], "norm").pvalue > 0.01
    assert stats.kstest([run["gaussian_p"] for run in runs], "uniform").pvalue > 0.01
    assert stats.kstest([run["gaussian_p_two_sided"] for run in runs], "uniform").pvalue > 0.01
    # 20,000 scores at 1 %: standard error 0.0007
    assert np.mean([run["gaussian_tpr_exact"] for run in runs]) == pytest.approx(0.01, abs=0.003)
    assert np.mean([run["gaussian_score_se"] for run in runs]) == pytest.approx(1 / math.sqrt(50), rel=0.02)


def test_memorised_noise_gives_positive_scores():
    values = measure(planted(np.random.default_rng(2), rows=200, dim=50, eps=0.5, pull=0.5))
    assert values["gaussian_z"] > 10
    assert values["gaussian_p"] < 1e-20


def test_power_under_a_unit_shift():
    rng = np.random.default_rng(4)
    values = measure(1 + rng.standard_normal(20_000), rng.standard_normal((1, 20_000)))
    expected = stats.norm.sf(stats.norm.ppf(0.99) - 1)  # 0.092
    assert values["gaussian_tpr_exact"] == pytest.approx(expected, abs=0.01)
    assert values["gaussian_tpr_fresh"] == pytest.approx(expected, abs=0.02)


def test_no_score_left_is_undefined_and_counted():
    values = measure([], fresh=np.zeros((3, 0)), dropped=7)
    assert values.pop("gaussian_dropped") == 7
    assert all(math.isnan(value) for value in values.values())


def test_single_poison_has_no_standard_error():
    values = measure([0.5])
    assert math.isnan(values.pop("gaussian_score_se"))
    assert all(math.isfinite(value) for value in values.values())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"noise_scores": np.array([])}, "noise_scores must not be empty"),
        ({"noise_scores": np.array([0.0, np.nan, 1.0])}, "noise_scores must be finite"),
        ({"noise_scores": np.zeros((3, 1))}, "noise_scores must have 1 dimension"),
        ({"fresh_noise_scores": np.zeros(3)}, "fresh_noise_scores must have 2 dimension"),
        ({"fresh_noise_scores": np.zeros((2, 4))}, "fresh_noise_scores must have 3 columns"),
        ({"fresh_noise_scores": np.full((2, 3), np.inf)}, "fresh_noise_scores must be finite"),
        ({"noise_dropped": np.array([1])}, "noise_dropped must have 0 dimension"),
        ({"noise_dropped": np.array(-1)}, "noise_dropped must be a whole number"),
        ({"noise_dropped": np.array(0.5)}, "noise_dropped must be a whole number"),
    ],
)
def test_invalid_arrays_are_named(changed, message):
    good = {"noise_scores": np.zeros(3), "fresh_noise_scores": np.zeros((2, 3)), "noise_dropped": np.array(0)}
    with pytest.raises(ValueError, match=message):
        compute_all(good | changed)
