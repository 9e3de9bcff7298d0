"""Rank correlation of clustered rungs: against scipy, against repeated rows, and the coverage of its interval."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from analysis.statistics.rank_correlation import Against, Groups, once, rank_correlation, spearman

METHODS, SEEDS, BUDGETS = 8, 3, 5


def crossed(random: np.random.Generator, *, latent: float) -> tuple[NDArray[np.float64], ...]:
    """x, y, methods, seeds of a whole sweep: normal effects of method, seed, run and rung, all of correlation `latent`.

    Pooled over everything (x, y) is bivariate normal with that correlation, whose Spearman's rho is
    6 / pi * asin(latent / 2) (Kruskal, J. Am. Stat. Assoc. 53, 1958).
    """

    def effects(*shape: int) -> NDArray[np.float64]:
        first, second = random.normal(size=(2, *shape))
        return np.stack([first, latent * first + math.sqrt(1 - latent**2) * second])

    runs = effects(METHODS, 1, 1) + 0.4 * effects(1, SEEDS, 1) + 0.4 * effects(METHODS, SEEDS, 1)
    x, y = (runs + 0.5 * effects(METHODS, SEEDS, BUDGETS)).reshape(2, -1)
    method, seed, _ = np.indices((METHODS, SEEDS, BUDGETS)).reshape(3, -1)
    return x, y, method, seed


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=30))
def test_equal_weights_give_scipys_rho_with_ties(pairs: list[tuple[int, int]]) -> None:
    x, y = np.array(pairs, dtype=float).T
    found = spearman(x, y, once(x.size))[0]
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(scipy_stats.spearmanr(x, y).statistic)


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 3)), min_size=4, max_size=20))
def test_a_weight_is_a_number_of_copies(rows: list[tuple[int, int, int]]) -> None:
    x, y, weight = np.array(rows, dtype=float).T
    copies = weight.astype(int)
    many_x, many_y = np.repeat(x, copies), np.repeat(y, copies)
    found = spearman(x, y, Groups(np.arange(x.size), weight[None]))[0]
    if many_x.size < 2 or np.ptp(many_x) == 0 or np.ptp(many_y) == 0:
        assert math.isnan(found)
    else:
        assert found == pytest.approx(scipy_stats.spearmanr(many_x, many_y).statistic)


@pytest.mark.parametrize("latent", [0.0, 0.8])
def test_the_interval_covers_where_independent_rungs_would_not(latent: float) -> None:
    random = np.random.default_rng(0)
    truth = 6 / math.pi * math.asin(latent / 2)
    covered, naive = 0, 0
    for _ in range(60):
        x, y, method, seed = crossed(random, latent=latent)
        found = rank_correlation(x, y, methods=method, seeds=seed)
        covered += found.low <= truth <= found.high
        reach = 1.96 / math.sqrt(x.size - 3)  # Fisher's z, as if the 120 rungs were independent
        naive += abs(math.atanh(found.rho) - math.atanh(truth)) <= reach
    assert 54 <= covered <= 60  # 95 % of 60 are 57, with a standard deviation of 1.7
    assert naive < 45


def test_monotone_is_one_and_reversed_is_minus_one() -> None:
    x, _, method, seed = crossed(np.random.default_rng(1), latent=0.5)
    assert rank_correlation(x, np.exp(x), methods=method, seeds=seed)[:3] == pytest.approx((1, 1, 1))
    assert rank_correlation(x, -(x**3), methods=method, seeds=seed)[:3] == pytest.approx((-1, -1, -1))


def test_pairs_with_a_missing_value_do_not_count() -> None:
    x, y, method, seed = crossed(np.random.default_rng(2), latent=0.7)
    holes = x.copy()
    holes[::3], y[1::7] = math.nan, math.nan
    there = np.isfinite(holes) & np.isfinite(y)
    found = rank_correlation(holes, y, methods=method, seeds=seed)
    assert found.n == there.sum()
    assert found == rank_correlation(x[there], y[there], methods=method[there], seeds=seed[there])


@pytest.mark.parametrize(
    "change, reason",
    [
        (lambda x: x * math.nan, "not measured"),
        (lambda x: x * 0 + 0.25, "constant"),
        (lambda x: 0.1 + 0.2 + 1e-17 * x, "constant"),
        (lambda x: (np.arange(x.size) == 3).astype(float), "no interval: constant for most methods"),
    ],
)
def test_degenerate_columns_are_empty_with_a_reason(change: object, reason: str) -> None:
    x, y, method, seed = crossed(np.random.default_rng(3), latent=0.7)
    found = rank_correlation(change(x), y, methods=method, seeds=seed)  # type: ignore[operator]
    assert found.reason == reason
    assert math.isnan(found.low)
    assert math.isnan(found.rho) == (not reason.startswith("no interval"))


def test_four_methods_have_no_interval() -> None:
    x, y, method, seed = crossed(np.random.default_rng(4), latent=0.7)
    few = method < 4
    found = rank_correlation(x[few], y[few], methods=method[few], seeds=seed[few])
    assert math.isnan(found.low)
    assert found.rho == pytest.approx(scipy_stats.spearmanr(x[few], y[few]).statistic)


def test_blocks_of_resamples_and_what_is_kept_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, method, seed = crossed(np.random.default_rng(5), latent=0.7)
    other = np.where(np.arange(x.size) % 4, x, math.nan)
    plain = [rank_correlation(values, y, methods=method, seeds=seed) for values in (x, other, -x)]
    kept = Against(y, methods=method, seeds=seed)
    assert [kept.correlation(values) for values in (x, other, -x)] == plain
    monkeypatch.setattr("analysis.statistics.rank_correlation.AT_ONCE", 7 * x.size)
    assert Against(y, methods=method, seeds=seed).correlation(x) == plain[0]
    monkeypatch.setattr("analysis.statistics.rank_correlation.KEPT", 0)
    blocks = Against(y, methods=method, seeds=seed)
    assert [blocks.correlation(values) for values in (x, other, -x)] == plain


def test_rungs_of_a_method_and_seed_are_drawn_together_as_often_as_both_are() -> None:
    """By an independent way: copies of the rungs of each resample, drawn as the documentation says."""
    x, y, method, seed = crossed(np.random.default_rng(6), latent=0.5)
    random = np.random.default_rng(0)
    of_method, of_seed = (random.multinomial(k, np.full(k, 1 / k), 500) for k in (METHODS, SEEDS))
    rhos = []
    for methods, seeds in zip(of_method, of_seed, strict=True):
        copies = methods[method] * seeds[seed]
        rhos.append(scipy_stats.spearmanr(np.repeat(x, copies), np.repeat(y, copies)).statistic)
    low, high = np.quantile(rhos, [0.025, 0.975])
    assert rank_correlation(x, y, methods=method, seeds=seed)[1:3] == pytest.approx((low, high), abs=1e-12)


def test_rounding_makes_no_ranks() -> None:
    y, method = np.arange(6.0), np.arange(6)
    same = np.array([0.3, 0.1 + 0.2, 0.3, 0.1 + 0.2, 0.6, 0.3 + 0.3])
    plain = rank_correlation(np.array([3.0, 3, 3, 3, 6, 6]), y, methods=method, seeds=np.zeros(6))
    assert rank_correlation(same, y, methods=method, seeds=np.zeros(6)) == plain
