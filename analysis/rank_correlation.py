"""Rank correlation of quantities measured on rungs that are not independent. Pure functions of arrays."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.stats import LEVEL

DRAWS = 500
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


def rank_correlation(x: ArrayLike, y: ArrayLike, *, methods: ArrayLike, seeds: ArrayLike) -> RankCorrelation:
    """Spearman's rank correlation of rungs, and its interval by resampling methods and seeds.

    Rungs of one run follow each other, runs of one method share its behaviour, and runs of one seed share poisons,
    corrupted model and oracle, so rungs are no independent units: Fisher's z with their number, or resampling single
    runs, gives intervals far too narrow (the test of coverage shows it). Methods and seeds are crossed, hence both
    are resampled, independently, and a rung counts as often as its method times its seed was drawn (the pigeonhole
    bootstrap, which errs on the wide side). With one seed, methods alone are resampled: the interval then speaks of
    that scenario only.

    Args:
        x, y: shape (n,); pairs with a value that is not finite are left out. Ties share their mean rank.
        methods, seeds: shape (n,), labels.
    Returns: percentile interval of DRAWS resamples with a fixed seed; without one below LEAST_METHODS methods.
    Source: Owen, Annals of Applied Statistics 1 (2007), arXiv:0712.1111.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    both = np.isfinite(x) & np.isfinite(y)
    x, y = _without_rounding(x[both]), _without_rounding(y[both])
    if x.size < 2:
        return RankCorrelation(math.nan, math.nan, math.nan, x.size, "not measured")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return RankCorrelation(math.nan, math.nan, math.nan, x.size, "constant")
    method = np.unique(np.asarray(methods)[both], return_inverse=True)[1]
    seed = np.unique(np.asarray(seeds)[both], return_inverse=True)[1]
    rho = float(spearman(x, y, np.ones((1, x.size)))[0])
    if method.max() + 1 < LEAST_METHODS:
        return RankCorrelation(rho, math.nan, math.nan, x.size, f"no interval: fewer than {LEAST_METHODS} methods")
    drawn = spearman(x, y, _weights(method, seed))
    drawn = drawn[np.isfinite(drawn)]
    if drawn.size < USABLE * DRAWS:
        return RankCorrelation(rho, math.nan, math.nan, x.size, "no interval: constant for most methods")
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return RankCorrelation(rho, float(low), float(high), x.size, "")


def _without_rounding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values in units of 1e-9 of the largest: equal ones that were computed differently are ties again."""
    largest = float(np.abs(values).max(initial=0.0))
    return np.round(values / largest * 1e9) if largest > 0 else values


def _weights(method: NDArray[np.intp], seed: NDArray[np.intp]) -> NDArray[np.float64]:
    """How often each rung counts in each resample, shape (DRAWS, n)."""
    random = np.random.default_rng(0)
    drawn = [random.multinomial(k, np.full(k, 1 / k), DRAWS).astype(float) for k in (method.max() + 1, seed.max() + 1)]
    return np.asarray(drawn[0][:, method] * drawn[1][:, seed])


def spearman(x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman's rho of weighted pairs: weight k means that the pair is there k times.

    Args:
        x, y: shape (n,), finite.
        weights: shape (draws, n), >= 0.
    Returns: shape (draws,); NaN where x or y is constant among the pairs with a positive weight.
    """
    a, b = _centred_ranks(x, weights), _centred_ranks(y, weights)
    together, own_a, own_b = (np.einsum("dn,dn,dn->d", weights, p, q) for p, q in ((a, b), (a, a), (b, b)))
    spread = np.sqrt(own_a * own_b)
    defined = spread > 1e-9 * np.maximum(1.0, weights.sum(axis=1)) ** 2
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
