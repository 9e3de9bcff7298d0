"""How well scores tell members from non-members. Higher scores mean "more member"; any unit, equal on both sides."""

from __future__ import annotations

import math

import numpy as np

from unlearn_core import checks
from unlearn_core.metrics.arrays import scores

CURVE_RATES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)
"""False-positive rates at which records keep the ROC curves of scores."""
CURVE = "_roc_"
"""In the names of columns that are points of one curve, and no metrics by themselves."""


def tpr_at_fpr(*, member: np.ndarray, nonmember: np.ndarray, fpr: float) -> float:
    """True-positive rate of the best threshold attack whose false-positive rate is at most `fpr`.

    Conservative: no interpolation between thresholds, so with fewer than 1 / `fpr` non-members not one of them may
    be misjudged, and a member tied with the first forbidden non-member does not count.

    Args:
        member: Scores of training examples, shape (n,).
        nonmember: Scores of held-out examples, shape (m,).
        fpr: Allowed share of non-members called members, in [0, 1].

    Returns:
        Share of members called members, in [0, 1].

    Raises:
        ValueError: If an array is empty, not 1-D or not finite, or `fpr` is outside [0, 1].

    Source: Carlini et al., IEEE S&P 2022, arXiv:2112.03570.
    """
    member, nonmember = scores(member=member, nonmember=nonmember)
    checks.in_range("fpr", fpr, 0, 1)
    # Comparing quotients, because floor(fpr * m) is wrong by rounding for some rates k / m.
    rates = np.arange(nonmember.size + 1) / nonmember.size
    allowed = int(np.searchsorted(rates, fpr, side="right")) - 1  # non-members that may be misjudged
    if allowed == nonmember.size:
        return 1.0
    return float(np.mean(member > np.sort(nonmember)[::-1][allowed]))


def curve_columns(family: str) -> dict[float, str]:
    """Rate of CURVE_RATES -> name of the column that holds the true-positive rate there; `family` begins the names."""
    return {rate: f"{family}{CURVE}{rate:g}" for rate in CURVE_RATES}


def tpr_curve(*, member: np.ndarray, nonmember: np.ndarray) -> dict[float, float]:
    """`tpr_at_fpr` at each of CURVE_RATES; NaN where even one misjudged non-member is more than the rate allows.

    Args, raises: as `tpr_at_fpr`.
    """
    return {
        rate: tpr_at_fpr(member=member, nonmember=nonmember, fpr=rate) if 1 / np.size(nonmember) <= rate else math.nan
        for rate in CURVE_RATES
    }


def auc(*, member: np.ndarray, nonmember: np.ndarray) -> float:
    """Probability that a random member scores higher than a random non-member; a tie counts one half.

    Args:
        member: Scores of training examples, shape (n,).
        nonmember: Scores of held-out examples, shape (m,).

    Returns:
        Area under the ROC curve, in [0, 1]; 0.5 means indistinguishable in rank.

    Raises:
        ValueError: If an array is empty, not 1-D, or not finite.
    """
    member, nonmember = scores(member=member, nonmember=nonmember)
    ranked = np.sort(nonmember)
    below = np.searchsorted(ranked, member, side="left")
    not_above = np.searchsorted(ranked, member, side="right")
    return float(np.mean(below + not_above) / (2 * nonmember.size))


def advantage(*, member: np.ndarray, nonmember: np.ndarray) -> float:
    """Largest TPR - FPR over all thresholds; (1 + advantage) / 2 is the best balanced accuracy.

    Args:
        member: Scores of training examples, shape (n,).
        nonmember: Scores of held-out examples, shape (m,).

    Returns:
        In [0, 1]; 0 if no threshold does better than chance.

    Raises:
        ValueError: If an array is empty, not 1-D, or not finite.

    Source: Yeom et al., IEEE CSF 2018, arXiv:1709.01604.
    """
    member, nonmember = scores(member=member, nonmember=nonmember)
    thresholds = np.unique(member)  # the gain grows only where a member is let in
    tpr = 1 - np.searchsorted(np.sort(member), thresholds, side="left") / member.size
    fpr = 1 - np.searchsorted(np.sort(nonmember), thresholds, side="left") / nonmember.size
    return float(max(0.0, np.max(tpr - fpr)))


def best_threshold(*, member: np.ndarray, nonmember: np.ndarray) -> float:
    """Threshold of the attack "member if score >= threshold" with the largest TPR - FPR; the strictest of equals.

    Args:
        member: Scores of training examples, shape (n,).
        nonmember: Scores of held-out examples, shape (m,).

    Returns:
        A member's score, or infinity (nobody is called a member) if no threshold does better than chance.

    Raises:
        ValueError: If an array is empty, not 1-D, or not finite.

    Source: Song and Mittal, USENIX Security 2021, arXiv:2003.10595.
    """
    member, nonmember = scores(member=member, nonmember=nonmember)
    thresholds = np.unique(member)
    caught = member.size - np.searchsorted(np.sort(member), thresholds, side="left")
    wrong = nonmember.size - np.searchsorted(np.sort(nonmember), thresholds, side="left")
    gains = caught * nonmember.size - wrong * member.size  # whole numbers, so that equal gains are equal
    best = gains.size - 1 - int(np.argmax(gains[::-1]))
    return float(thresholds[best]) if gains[best] > 0 else math.inf
