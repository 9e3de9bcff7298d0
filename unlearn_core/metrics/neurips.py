"""The score of the NeurIPS 2023 unlearning competition, beside what a retraining scores in the same place."""

from __future__ import annotations

import math

import numpy as np

from unlearn_core.metrics import arrays as check
from unlearn_core.metrics.family import Arrays, Family
from unlearn_core.registry import METRICS

DELTA = 1e-5
CAP = 50.0  # epsilon of distributions that are separated without an error
PEAKED = 0.01  # ratio of two ranges below which the narrower distribution counts as a giveaway
BUFFER = 2.0  # how far a window may be off the range of the narrower distribution
BIN = 0.5  # width of the bins of epsilon


def empirical_epsilons(*, unlearned: np.ndarray, oracle: np.ndarray) -> np.ndarray:
    """epsilon of each example: how well the best of two families of attacks separates unlearned from retrained models.

    One family calls everything from a threshold on the class with the larger median, the other everything inside a
    window about the narrower distribution's range (its right end and its width within 2 of the range's) that class.
    An attack with false-positive and false-negative rates a, b shows max(log(1 - delta - a) - log b, log(1 - delta - b)
    - log a), delta = 1e-5; without any error it shows the cap of 50, and with exactly one kind of error nothing.
    A range under 1 % of the other gives 50. Where no attack is left (two equal constants, very few models) it is 0.

    Args:
        unlearned: Scores log p_y / (1 - p_y), shape (models, examples).
        oracle: The same of retrained models, as many.

    Returns:
        Shape (examples,), in [0, 50].

    Raises:
        ValueError: If an array is empty, not 2-D or not finite, or if the shapes differ.

    Source: Triantafillou et al., 2024, arXiv:2406.09073. Deviation: every threshold between two scores is tried, in
    place of a grid of 100 per unit; the result is at least the grid's, in time that grows with models squared alone.
    """
    sides = [check.finite(name, v, ndim=2) for name, v in (("unlearned", unlearned), ("oracle", oracle))]
    if sides[0].shape != sides[1].shape:
        raise ValueError(f"unlearned and oracle must have the same shape, but have {[s.shape for s in sides]}")
    return np.array([_epsilon(a, b) for a, b in zip(sides[0].T, sides[1].T, strict=True)])


def _epsilon(unlearned: np.ndarray, oracle: np.ndarray) -> float:
    sides = unlearned, oracle
    ranges = sorted(map(np.ptp, sides))
    if ranges[0] < PEAKED * ranges[1]:
        return CAP
    values, index = np.unique(np.concatenate(sides), return_inverse=True)
    below = [_counts_below(part, len(values)) for part in np.split(index, 2)]
    high, low = (1, 0) if np.median(oracle) > np.median(unlearned) else (0, 1)
    peaked, other = (low, high) if np.ptp(sides[low]) <= np.ptp(sides[high]) else (high, low)
    count = len(oracle)
    thresholds = (count - below[low][:-1], below[high][:-1])  # wrongly called positive, wrongly called negative
    first, last = _windows(values, sides[peaked])
    inside = [part[last + 1] - part[first] for part in below]
    false_positives = np.concatenate([thresholds[0], inside[other]])
    false_negatives = np.concatenate([thresholds[1], count - inside[peaked]])
    return _best(false_positives / count, false_negatives / count)


def _counts_below(index: np.ndarray, size: int) -> np.ndarray:
    """How many scores lie below each of `size` distinct values, and, last, how many there are."""
    return np.concatenate([[0], np.cumsum(np.bincount(index, minlength=size))])


def _windows(values: np.ndarray, narrow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Windows that can be drawn: numbers of the first and the last distinct value inside, one entry per window.

    The left end lies between the value before and the first inside, the right end between the last and the one after.
    """
    top, width = float(narrow.max()), float(np.ptp(narrow))
    before, after = np.concatenate([[-np.inf], values[:-1]]), np.concatenate([values[1:], [np.inf]])
    least_right, most_right = np.maximum(values, top - BUFFER), np.minimum(after, top + BUFFER)
    right = (values <= top + BUFFER) & (after > top - BUFFER)
    shortest, longest = least_right - values[:, None], most_right - before[:, None]
    drawn = right & (shortest <= width + BUFFER) & (longest > width - BUFFER)
    first, last = np.nonzero(np.triu(drawn))
    return first, last


def _best(false_positive: np.ndarray, false_negative: np.ndarray) -> float:
    errors = (false_positive > 0).astype(int) + (false_negative > 0)
    if (errors == 0).any():
        return CAP
    a, b = false_positive[errors == 2], false_negative[errors == 2]
    if a.size == 0:
        return 0.0
    spare = np.maximum(1 - DELTA - np.stack([a, b]), np.finfo(float).tiny)  # nothing to spare: nothing shown
    shown = np.log(spare) - np.log(np.stack([b, a]))
    return float(np.clip(shown.max(), 0.0, CAP))


def forgetting_quality(*, unlearned: np.ndarray, oracle: np.ndarray) -> float:
    """Mean points of the examples: 1 for epsilon below 0.5, half with each further 0.5, 0 from ceil(log(models - 1)).

    Equal distributions do not score 1, but (for N(0, 1)) about 0.18 with 16 to 256 models on each side and 0.19 with
    512: compare with what a second set of retrained models scores.
    Args, raises: as `empirical_epsilons`. Source: as there.
    """
    epsilons = empirical_epsilons(unlearned=unlearned, oracle=oracle)
    bins = math.floor(math.ceil(math.log(max(2, len(oracle) - 1))) / BIN)
    number = np.floor(epsilons / BIN)
    return float(np.mean(np.where(number < bins, 0.5**number, 0.0)))


def _neurips(arrays: Arrays) -> dict[str, float]:
    """The competition's score: forgetting quality times relative accuracy on retained and held-out rows.

    `oracle` and `second_oracle` are independent sets of retrained models; the second one's score is the most that can
    be expected. Source: Triantafillou et al., 2024, arXiv:2406.09073.
    """
    quality = {}
    utility = {}
    for who in ("unlearned", "second_oracle"):
        quality[who] = forgetting_quality(
            unlearned=arrays[f"{who}_forget_margins"], oracle=arrays["oracle_forget_margins"]
        )
        utility[who] = math.prod(_relative(arrays, who, rows) for rows in ("retain", "test"))
    score, most = (quality[who] * utility[who] for who in ("unlearned", "second_oracle"))
    return {
        "neurips_forgetting": quality["unlearned"],
        "neurips_forgetting_floor": quality["second_oracle"],
        "neurips_utility": utility["unlearned"],
        "neurips_score": score,
        "neurips_score_normalised": score / most if most > 0 else math.nan,
    }


def _relative(arrays: Arrays, who: str, rows: str) -> float:
    """Mean accuracy of these models as a share of the oracles'; NaN if that is 0."""
    (own,) = check.scores(**{f"{who}_{rows}_accuracies": arrays[f"{who}_{rows}_accuracies"]})
    (oracle,) = check.scores(**{f"oracle_{rows}_accuracies": arrays[f"oracle_{rows}_accuracies"]})
    return float(np.mean(own) / np.mean(oracle)) if np.any(oracle) else math.nan


METRICS.register("neurips")(
    Family(
        needs=tuple(
            f"{who}_{what}"
            for who in ("oracle", "unlearned", "second_oracle")
            for what in ("forget_margins", "retain_accuracies", "test_accuracies")
        ),
        compute=_neurips,
        columns={
            "neurips_forgetting": "forgetting quality F on the poisons, in [0, 1]; higher is better, target: its floor",
            "neurips_forgetting_floor": "F of a second oracle ensemble: what equal distributions score, not 1",
            "neurips_utility": "accuracy relative to the oracles', on retained rows times on held-out rows; target 1",
            "neurips_score": "F times neurips_utility, as in the competition; higher is better",
            "neurips_score_normalised": "neurips_score over a second oracle ensemble's; target 1, NaN if that is 0",
        },
    )
)
