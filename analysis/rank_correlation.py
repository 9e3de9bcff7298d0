"""Rank correlation of quantities measured on rungs that are not independent. Pure functions of arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.stats import LEVEL

DRAWS = 500
AT_ONCE = 2_000_000
"""Numbers in an array of resamples: 16 MB."""
LEAST_METHODS = 5
"""Methods from which resampling them says anything: four give 35 distinct resamples, most of them of two or three."""
USABLE = 0.9
"""Share of resamples that must have a defined correlation; in the others a quantity is constant."""


class RankCorrelation(NamedTuple):
    """Spearman's rho with its 95 % interval; NaN where undefined, and then `reason` says why."""

    rho: float
    low: float
    high: float
    n: int
    reason: str


class Resampled(NamedTuple):
    """A quantity in some resamples: weights and centred ranks, shape (draws, n), and sums of weighted squared ranks,
    shape (draws,)."""

    weights: NDArray[np.float64]
    ranks: NDArray[np.float64]
    spread: NDArray[np.float64]


class Against:
    """A quantity that others are correlated with over the same rungs: what depends on it alone is computed once.

    y: shape (n,). methods, seeds: shape (n,), labels.
    """

    def __init__(self, y: ArrayLike, *, methods: ArrayLike, seeds: ArrayLike) -> None:
        self.y, self.methods, self.seeds = np.asarray(y, dtype=float), np.asarray(methods), np.asarray(seeds)
        self._kept: tuple[bytes, list[Resampled]] = (b"", [])

    def correlation(self, x: ArrayLike) -> RankCorrelation:
        """Spearman's rank correlation of rungs, and its interval by resampling methods and seeds.

        Rungs of one run follow each other, runs of one method share its behaviour, and runs of one seed share poisons,
        corrupted model and oracle, so rungs are no independent units: Fisher's z with their number, or resampling
        single runs, gives intervals far too narrow (the test of coverage shows it). Methods and seeds are crossed,
        hence both are resampled, independently, and a rung counts as often as its method times its seed was drawn (the
        pigeonhole bootstrap, which errs on the wide side). With one seed, methods alone are resampled: the interval
        then speaks of that scenario only.

        Args:
            x: shape (n,); pairs with a value that is not finite are left out. Ties share their mean rank.
        Returns: percentile interval of DRAWS resamples with a fixed seed; without one below LEAST_METHODS methods.
        Source: Owen, Annals of Applied Statistics 1 (2007), arXiv:0712.1111.
        """
        x = np.asarray(x, dtype=float)
        both = np.isfinite(x) & np.isfinite(self.y)
        x, y = _without_rounding(x[both]), _without_rounding(self.y[both])
        if x.size < 2:
            return RankCorrelation(math.nan, math.nan, math.nan, x.size, "not measured")
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            return RankCorrelation(math.nan, math.nan, math.nan, x.size, "constant")
        rho = float(spearman(x, y, np.ones((1, x.size)))[0])
        if len(np.unique(self.methods[both])) < LEAST_METHODS:
            return RankCorrelation(rho, math.nan, math.nan, x.size, f"no interval: fewer than {LEAST_METHODS} methods")
        drawn = np.concatenate([_correlated(_ranked(x, some.weights), some) for some in self._resampled(y, both)])
        drawn = drawn[np.isfinite(drawn)]
        if drawn.size < USABLE * DRAWS:
            return RankCorrelation(rho, math.nan, math.nan, x.size, "no interval: constant for most methods")
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return RankCorrelation(rho, float(low), float(high), x.size, "")

    def _resampled(self, y: NDArray[np.float64], both: NDArray[np.bool_]) -> Iterable[Resampled]:
        """y in every resample of the rungs in `both`, as many resamples at a time as fit into AT_ONCE numbers."""
        key = both.tobytes()
        if self._kept[0] != key:
            blocks = (_ranked(y, weights) for weights in _weights(self.methods[both], self.seeds[both]))
            if DRAWS * y.size > AT_ONCE:
                return blocks
            self._kept = (key, list(blocks))
        return self._kept[1]


def rank_correlation(x: ArrayLike, y: ArrayLike, *, methods: ArrayLike, seeds: ArrayLike) -> RankCorrelation:
    """The correlation of x and y, see `Against.correlation`."""
    return Against(y, methods=methods, seeds=seeds).correlation(x)


def _without_rounding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values in units of 1e-9 of the largest: equal ones that were computed differently are ties again."""
    largest = float(np.abs(values).max(initial=0.0))
    return np.round(values / largest * 1e9) if largest > 0 else values


def _weights(methods: NDArray[Any], seeds: NDArray[Any]) -> Iterator[NDArray[np.float64]]:
    """How often each rung counts in each resample, shape (DRAWS, n) in blocks of rows."""
    method, seed = (np.unique(labels, return_inverse=True)[1] for labels in (methods, seeds))
    random = np.random.default_rng(0)
    drawn = [random.multinomial(k, np.full(k, 1 / k), DRAWS).astype(float) for k in (method.max() + 1, seed.max() + 1)]
    rows = max(1, AT_ONCE // method.size)
    for start in range(0, DRAWS, rows):
        some = slice(start, start + rows)
        yield drawn[0][some, method] * drawn[1][some, seed]


def spearman(x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman's rho of weighted pairs: weight k means that the pair is there k times.

    Args:
        x, y: shape (n,), finite.
        weights: shape (draws, n), >= 0.
    Returns: shape (draws,); NaN where x or y is constant among the pairs with a positive weight.
    """
    return _correlated(_ranked(x, weights), _ranked(y, weights))


def _ranked(values: NDArray[np.float64], weights: NDArray[np.float64]) -> Resampled:
    ranks = _centred_ranks(values, weights)
    return Resampled(weights, ranks, np.einsum("dn,dn,dn->d", weights, ranks, ranks))


def _correlated(a: Resampled, b: Resampled) -> NDArray[np.float64]:
    spread = np.sqrt(a.spread * b.spread)
    defined = spread > 1e-9 * np.maximum(1.0, a.weights.sum(axis=1)) ** 2
    together = np.einsum("dn,dn,dn->d", a.weights, a.ranks, b.ranks)
    return np.where(defined, together / np.where(defined, spread, 1.0), math.nan)


def _centred_ranks(values: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean ranks within each resample, minus their weighted mean; shape (draws, n)."""
    order = np.argsort(values, kind="stable")
    starts = np.flatnonzero(np.append(True, np.diff(values[order]) > 0))
    per_value = np.add.reduceat(weights[:, order], starts, axis=1)
    ranks_by_value = np.cumsum(per_value, axis=1) - per_value / 2
    position = np.empty(values.size, dtype=int)
    position[order] = np.repeat(np.arange(starts.size), np.diff(np.append(starts, values.size)))
    total = weights.sum(axis=1, keepdims=True)
    # The weighted mean of mid ranks is half of the total weight, whatever the ties.
    return np.asarray(ranks_by_value[:, position] - total / 2)
