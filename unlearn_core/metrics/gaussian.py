"""Trace that Gaussian poisons leave in a model, measured against an exact null."""

from __future__ import annotations

import math

import numpy as np

from unlearn_core.metrics import arrays as check
from unlearn_core.metrics.family import Arrays, Family
from unlearn_core.metrics.normal import ks_distance, quantile, two_sided_tail, upper_tail
from unlearn_core.metrics.roc import curve_columns, tpr_at_fpr
from unlearn_core.registry import METRICS

FPR = 0.01
CURVE_COLUMNS = curve_columns("gaussian")
COLUMNS = {
    "gaussian_score": "mean S over the poisons; larger = more poison left, target 0 (below 0: overshot)",
    "gaussian_score_se": "standard error of gaussian_score, sd / sqrt(m); undefined (NaN) for a single poison",
    "gaussian_z": "sqrt(m) * gaussian_score; exactly N(0, 1) if the model never saw the noise, large = poison left",
    "gaussian_p": "one-sided p-value of gaussian_z, small = poison left; uniform without poison",
    "gaussian_p_two_sided": "two-sided p-value of gaussian_z, small = poison left or overshot; uniform without poison",
    "gaussian_tpr_exact": "share of poisons beyond the null's 99 % quantile, 2.326; target 0.01, larger = poison left",
    "gaussian_tpr_fresh": "share of poisons caught at 1 % false positives among fresh noise; target 0.01",
    "gaussian_null_mean": "mean score of fresh noise: check of the measurement, 0 whatever the model",
    "gaussian_null_ks": "Kolmogorov-Smirnov distance of fresh noise scores from N(0, 1): check, about 0.87 / sqrt(n)",
    "gaussian_dropped": "poisons left out because their input gradient vanishes; target 0, others NaN if all are",
} | {
    column: f"share of poisons beyond the null's {100 * (1 - rate):g} % quantile; target {rate:g}, larger = poison left"
    for rate, column in CURVE_COLUMNS.items()
}


def _gaussian(arrays: Arrays) -> dict[str, float]:
    """Gaussian score S = -<g, xi> / (eps |g|): alignment of input gradients with the noise that was planted.

    g is the loss gradient at the clean base input and xi ~ N(0, eps^2 I) the noise; S is N(0, 1) for any model that
    is independent of xi. Where every gradient vanished nothing is left to measure: all columns but gaussian_dropped
    are NaN then.

    Raises:
        ValueError: If the arrays do not have one score per poison.

    Source: Pawelczyk et al., ICLR 2025, arXiv:2406.17216; sign turned so that larger means more poison.
    """
    dropped = _dropped(arrays["noise_dropped"])
    if dropped and np.size(arrays["noise_scores"]) == 0:
        return dict.fromkeys(COLUMNS, math.nan) | {"gaussian_dropped": dropped}
    (score,) = check.scores(noise_scores=arrays["noise_scores"])
    fresh = check.finite("fresh_noise_scores", arrays["fresh_noise_scores"], ndim=2)
    if fresh.shape[1] != score.size:
        raise ValueError(f"fresh_noise_scores must have {score.size} columns as noise_scores, but has {fresh.shape}")
    return _planted(score) | _null(score, fresh.ravel()) | {"gaussian_dropped": dropped}


def _dropped(count: np.ndarray) -> float:
    dropped = float(check.finite("noise_dropped", count, ndim=0))
    if dropped < 0 or dropped != int(dropped):
        raise ValueError(f"noise_dropped must be a whole number of rows, but got {dropped!r}")
    return dropped


def _planted(score: np.ndarray) -> dict[str, float]:
    mean, root = float(np.mean(score)), math.sqrt(score.size)
    return {
        "gaussian_score": mean,
        "gaussian_score_se": float(np.std(score, ddof=1)) / root if score.size > 1 else math.nan,
        "gaussian_z": root * mean,
        "gaussian_p": upper_tail(root * mean),
        "gaussian_p_two_sided": two_sided_tail(root * mean),
        "gaussian_tpr_exact": float(np.mean(score > quantile(1 - FPR))),
        **{column: float(np.mean(score > quantile(1 - rate))) for rate, column in CURVE_COLUMNS.items()},
    }


def _null(score: np.ndarray, fresh: np.ndarray) -> dict[str, float]:
    return {
        "gaussian_tpr_fresh": tpr_at_fpr(member=score, nonmember=fresh, fpr=FPR),
        "gaussian_null_mean": float(np.mean(fresh)),
        "gaussian_null_ks": ks_distance(fresh),
    }


METRICS.register("gaussian")(
    Family(needs=("noise_scores", "fresh_noise_scores", "noise_dropped"), compute=_gaussian, columns=COLUMNS)
)
