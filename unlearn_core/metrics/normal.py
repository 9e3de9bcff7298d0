"""The standard normal distribution: tails, quantile, and the distance of a sample from it."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from unlearn_core.metrics.arrays import scores

_STANDARD = NormalDist()


def quantile(probability: float) -> float:
    """z with P(Z <= z) = `probability`, which lies strictly between 0 and 1."""
    return _STANDARD.inv_cdf(probability)


def upper_tail(z: float) -> float:
    """P(Z >= z); keeps its relative precision far out and underflows to 0 only beyond z = 38."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def two_sided_tail(z: float) -> float:
    """P(|Z| >= |z|)."""
    return math.erfc(abs(z) / math.sqrt(2))


def ks_distance(sample: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance between the empirical distribution of `sample` and N(0, 1).

    Args:
        sample: Shape (n,), finite.

    Returns:
        The largest difference of the distribution functions, in (0, 1]; under N(0, 1) about 0.87 / sqrt(n).

    Raises:
        ValueError: If the array is empty, not 1-D, or not finite.
    """
    (sample,) = scores(sample=sample)
    cdf = np.array([_STANDARD.cdf(value) for value in np.sort(sample).tolist()])
    steps = np.arange(sample.size + 1) / sample.size  # the empirical function jumps from steps[i] to steps[i + 1]
    return float(max(np.max(steps[1:] - cdf), np.max(cdf - steps[:-1])))
