"""U-LiRA: can an attacker who knows how poisons look before and after unlearning tell that one was trained on?"""

from __future__ import annotations

import math

import numpy as np

from unlearn_core.metrics import arrays as check
from unlearn_core.metrics.family import Arrays, Family
from unlearn_core.metrics.roc import auc, tpr_at_fpr
from unlearn_core.registry import METRICS

FPR = 0.01
OWN_VARIANCE = 64  # with so many shadows each poison has its own variance; with fewer, all share one
LEAST_VARIANCE = 1e-8  # of a score, in logits squared: shadows that all agree still have a density


def likelihood_ratios(*, seen: np.ndarray, unseen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log of the likelihood of "trained on, then unlearned" over that of "never trained on", for every score.

    Each poison has a Gaussian for either world, fitted without the pair of shadows that is judged: no score is
    judged by itself, and both fits rest on equally many others, which makes chance exactly one half.

    Args:
        seen: Scores log p_y / (1 - p_y), shape (pairs, poisons), of the shadow in each pair that was trained on the
            poison and then unlearned it.
        unseen: The same of the other shadow, which never saw that poison and unlearned others.

    Returns:
        The log ratios of both, each of shape (pairs, poisons); above 0 means "was trained on".

    Raises:
        ValueError: If an array is not 2-D or not finite, is a truth value per score, or has fewer than 4 pairs, or if
            the shapes differ.

    Source: Hayes, Shumailov, Triantafillou, Khalifa, Papernot, SaTML 2025, arXiv:2403.01218.
    """
    seen, unseen = (_scores(name, values) for name, values in (("seen", seen), ("unseen", unseen)))
    if seen.shape != unseen.shape:
        raise ValueError(f"seen and unseen must have the same shape, but have {seen.shape} and {unseen.shape}")
    fits = [_fit_without_each(side) for side in (seen, unseen)]
    ratios = [_log_density(side, *fits[0]) - _log_density(side, *fits[1]) for side in (seen, unseen)]
    return ratios[0], ratios[1]


def _scores(name: str, values: np.ndarray) -> np.ndarray:
    if np.asarray(values).dtype.kind == "b":
        raise ValueError(f"{name} must hold logits log p / (1 - p), but holds truth values")
    scores = check.finite(name, values, ndim=2)
    if len(scores) < 4:
        raise ValueError(f"{name} must have at least 4 pairs of shadows, but has shape {scores.shape}")
    return scores


def _fit_without_each(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of each poison's scores without those of pair j, for every j: (pairs, poisons) each."""
    pairs = len(scores)
    centred = scores - scores.mean(axis=0)  # sums of squares lose no digits
    mean = -centred / (pairs - 1)
    squares = np.square(centred).sum(axis=0) - np.square(centred)
    variance = (squares - (pairs - 1) * np.square(mean)) / (pairs - 2)
    if 2 * pairs < OWN_VARIANCE:
        variance = np.broadcast_to(variance.mean(axis=1, keepdims=True), scores.shape)
    return mean + scores.mean(axis=0), np.maximum(variance, LEAST_VARIANCE)


def _log_density(scores: np.ndarray, mean: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Of a Gaussian, without the constant that both worlds share."""
    density: np.ndarray = -0.5 * (np.square(scores - mean) / variance + np.log(variance))
    return density


def _ulira(arrays: Arrays) -> dict[str, float]:
    """U-LiRA: likelihood-ratio attack on shadow models that unlearned one half of the poisons each.

    Every poison is in one shadow of each pair, so in half of them, and every shadow carries half of the poison. No
    value is good by being low: below chance is noise, or a method that overshoots and so betrays what it forgot.
    With fewer than 64 shadows the poisons share one variance per world.

    Source: Hayes, Shumailov, Triantafillou, Khalifa, Papernot, SaTML 2025, arXiv:2403.01218; low false-positive
    rates and shared variances: Carlini et al., IEEE S&P 2022, arXiv:2112.03570. Deviations: shadow pairs are judged
    in turn by the others, in place of separate target models.
    """
    seen, unseen = likelihood_ratios(seen=arrays["ulira_seen_scores"], unseen=arrays["ulira_unseen_scores"])
    correct = [(ratio > 0) + 0.5 * (ratio == 0) for ratio in (seen, -unseen)]
    right = (correct[0] + correct[1]) / 2
    scores = {"member": seen.ravel(), "nonmember": unseen.ravel()}
    return {
        "ulira_accuracy": float(np.mean(right)),
        "ulira_accuracy_se": math.hypot(*(_mean_error(right.mean(axis=axis)) for axis in (0, 1))),
        "ulira_auc": auc(**scores),
        "ulira_tpr": tpr_at_fpr(**scores, fpr=FPR),
    }


def _mean_error(values: np.ndarray) -> float:
    """Standard error of the mean of independent values; 0 for a single one."""
    return float(np.std(values, ddof=1)) / math.sqrt(values.size) if values.size > 1 else 0.0


METRICS.register("ulira")(
    Family(
        needs=("ulira_seen_scores", "ulira_unseen_scores"),
        compute=_ulira,
        columns={
            "ulira_accuracy": "share of right guesses of the per-poison likelihood-ratio attack on all poisons, "
            "undiscovered ones included; target 0.5, oracle's",
            "ulira_accuracy_se": "its standard error over shadows and over poisons, added up: somewhat large",
            "ulira_auc": "ROC area of that attack over all poisons and shadows; target 0.5, larger = distinguishable",
            "ulira_tpr": "share it catches at 1 % false positives; target: the oracle's, near 0.01",
        },
    )
)
