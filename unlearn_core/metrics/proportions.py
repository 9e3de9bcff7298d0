"""Uncertainty of a share of successes, usable down to 0 % and up to 100 %."""

from __future__ import annotations

import math

from unlearn_core import checks
from unlearn_core.metrics.normal import quantile


def _checked(successes: int, trials: int) -> None:
    if trials < 1:
        raise ValueError(f"trials must be at least 1, but got {trials!r}")
    checks.in_range("successes", successes, 0, trials)


def wilson_interval(*, successes: int, trials: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of a binomial share.

    Args:
        successes: In [0, trials].
        trials: At least 1.
        confidence: Coverage, strictly between 0 and 1.

    Returns:
        (low, high) in [0, 1], around the observed share.

    Raises:
        ValueError: If an argument is out of range.

    Source: Wilson, J. Am. Stat. Assoc. 22 (1927).
    """
    _checked(successes, trials)
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie strictly between 0 and 1, but got {confidence!r}")
    z = quantile((1 + confidence) / 2)
    share, weight = successes / trials, z * z / trials
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / trials + weight / (4 * trials))
    # The bounds touch 0 and 1 exactly at no and at all successes, but not always in floating point.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return low, high


def share_error(*, successes: int, trials: int) -> float:
    """Agresti-Coull standard error of a binomial share.

    That of the share after z^2 more trials, half of them successes, with z the 97.5 % quantile of the normal
    distribution (z^2 = 3.84).

    The plain sqrt(p (1 - p) / n) is 0 at no and at all successes, so that one lucky row would pass for certainty.

    Args:
        successes: In [0, trials].
        trials: At least 1.

    Returns:
        A positive number, near sqrt(p (1 - p) / n) for many trials.

    Raises:
        ValueError: If an argument is out of range.

    Source: Agresti and Coull, The American Statistician 52 (1998).
    """
    _checked(successes, trials)
    extra = quantile(0.975) ** 2
    total = trials + extra
    share = (successes + extra / 2) / total
    return math.sqrt(share * (1 - share) / total)
