"""Intervals, tests and corrections over seeds. Pure functions of arrays; NaN means "not measured" and is left out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95
BOOTSTRAP_FROM = 8
"""Seeds from which resampling them says more than assuming normal values; below it, t intervals."""
DRAWS = 2000


class Interval(NamedTuple):
    """Mean and 95 % interval; the ends are NaN with fewer than two values."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def half(self) -> float:
        return (self.high - self.low) / 2


NOTHING = Interval(math.nan, math.nan, math.nan, 0)


def finite(values: ArrayLike) -> NDArray[np.float64]:
    """The finite numbers among `values`, shape (n,)."""
    array = np.asarray(values, dtype=float).ravel()
    return array[np.isfinite(array)]


def mean_interval(values: ArrayLike) -> Interval:
    """95 % interval of a mean: t for fewer than 8 values, studentised bootstrap from 8 on (fixed seed)."""
    x = finite(values)
    if x.size < 2:
        return NOTHING._replace(mean=float(x[0]), n=1) if x.size else NOTHING
    mean, error = float(x.mean()), float(x.std(ddof=1) / math.sqrt(x.size))
    if x.size < BOOTSTRAP_FROM or error == 0:
        reach = float(stats.t.ppf((1 + LEVEL) / 2, x.size - 1)) * error
        return Interval(mean, mean - reach, mean + reach, x.size)
    below, above = np.quantile(_resampled_t(x), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, mean - float(above) * error, mean - float(below) * error, x.size)


def p_value(differences: ArrayLike) -> float:
    """Two-sided p of a zero mean, by the same rule as `mean_interval`; NaN with fewer than two values.

    Equal differences on all seeds carry no estimate of their spread: the sign test is used there, so that three seeds
    cannot prove anything by being equal.
    """
    x = finite(differences)
    if x.size < 2:
        return math.nan
    if np.ptp(x) == 0:
        return 1.0 if x[0] == 0 else 2.0 ** (1 - x.size)
    t = float(x.mean() / (x.std(ddof=1) / math.sqrt(x.size)))
    if x.size < BOOTSTRAP_FROM:
        return float(2 * stats.t.sf(abs(t), x.size - 1))
    resampled = _resampled_t(x)
    tail = min(np.sum(resampled >= t), np.sum(resampled <= t))
    return float(min(1.0, 2 * (tail + 1) / (resampled.size + 1)))


def _resampled_t(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bootstrap distribution of (mean* - mean) / error*, shape (at most DRAWS,)."""
    drawn = x[np.random.default_rng(0).integers(0, x.size, (DRAWS, x.size))]
    error = drawn.std(axis=1, ddof=1) / math.sqrt(x.size)
    usable = error > 1e-12 * float(np.ptp(x))  # a draw of n equal values has no spread to divide by
    return (drawn.mean(axis=1)[usable] - x.mean()) / error[usable]


def benjamini_hochberg(p: ArrayLike) -> NDArray[np.float64]:
    """Adjusted p values (q), shape as `p`; NaN stays NaN and does not count as a test.

    Source: Benjamini and Hochberg, J. R. Statist. Soc. B 57 (1995).
    """
    p = np.asarray(p, dtype=float)
    q = np.full(p.shape, math.nan)
    tested = np.flatnonzero(np.isfinite(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    scaled = p[order] * order.size / np.arange(1, order.size + 1)
    q[order] = np.minimum(1.0, np.minimum.accumulate(scaled[::-1])[::-1])
    return q


def stouffer(z: ArrayLike) -> float:
    """Pooled z of independent z values, sum(z) / sqrt(k); NaN without any."""
    values = finite(z)
    return float(values.sum() / math.sqrt(values.size)) if values.size else math.nan


def jackknife(estimate: Callable[[NDArray[np.intp]], float], n: int) -> Interval:
    """95 % t interval of a function of `n` seeds, from leaving one out at a time.

    Args:
        estimate: Takes seed positions, shape (k,), and returns the quantity computed from those seeds.
        n: Number of seeds.
    """
    everyone = np.arange(n)
    whole = float(estimate(everyone)) if n else math.nan
    if n < 2:
        return Interval(whole, math.nan, math.nan, n)
    left_out = np.array([estimate(np.delete(everyone, i)) for i in range(n)])
    error = math.sqrt((n - 1) / n * float(np.sum((left_out - left_out.mean()) ** 2)))
    reach = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * error
    return Interval(whole, whole - reach, whole + reach, n)
