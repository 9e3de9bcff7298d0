"""KLOM: do retrainings and unlearned models give the same distribution of margins, point by point?"""

from __future__ import annotations

import math

import numpy as np

from unlearn_core.metrics import arrays as check
from unlearn_core.metrics.family import Arrays, Family
from unlearn_core.registry import METRICS

BINS = 20
CLIP = 100.0  # margins beyond this count as equal
EMPTY = 1e-5  # probability of a bin without any unlearned model: one point counts for at most log(1 / EMPTY) = 11.5
SETS = {"forget": "the poisons as trained on", "retain": "the retained probe", "test": "the held-out rows"}


def margin_divergence(*, oracle: np.ndarray, unlearned: np.ndarray) -> np.ndarray:
    """KL(oracle || unlearned) of the margins of each point, in nats, from histograms of 20 bins over the joint range.

    Two samples of one distribution do not give 0 but a floor that falls with their number: for N(0, 1) it is
    3.1, 0.91, 0.36, 0.15, 0.05 with 20, 50, 100, 200, 500 models on each side. Never read it without that floor.

    Args:
        oracle: Margins log p_y / (1 - p_y) of retrained models, shape (models, points).
        unlearned: The same of unlearned models, shape (models, points); the numbers of models should be equal.

    Returns:
        Shape (points,), from about 0 to log(1e5).

    Raises:
        ValueError: If an array is empty, not 2-D or not finite, or if the points differ in number.

    Source: Georgiev, Rinberg, Park et al., ICLR 2025, arXiv:2410.23232. Deviations: the largest margin of a point
    belongs to the last bin, where the authors' half-open bins drop it; only empty bins of the unlearned side are
    filled (filling the oracle's as well changes the fifth digit).
    """
    oracle, unlearned = (np.clip(side, -CLIP, CLIP) for side in _same_points(oracle=oracle, unlearned=unlearned))
    low = np.minimum(oracle.min(axis=0), unlearned.min(axis=0))
    width = np.maximum(oracle.max(axis=0), unlearned.max(axis=0)) - low
    p, q = (_shares((side - low) / np.where(width > 0, width, 1.0)) for side in (oracle, unlearned))
    terms = p * np.log(np.where(p > 0, p, 1.0) / np.maximum(q, EMPTY))
    divergence: np.ndarray = terms.sum(axis=1)
    return divergence


def _same_points(**sides: np.ndarray) -> list[np.ndarray]:
    checked = [check.finite(name, values, ndim=2) for name, values in sides.items()]
    if len({values.shape[1] for values in checked}) > 1:
        raise ValueError(f"{' and '.join(sides)} must have the same points, but have {[v.shape for v in checked]}")
    return checked


def _shares(positions: np.ndarray) -> np.ndarray:
    """Share of the models in each bin, (points, BINS). positions: in the joint range, (models, points) in [0, 1]."""
    models, points = positions.shape
    bins = np.minimum((positions * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount((bins + BINS * np.arange(points)).ravel(), minlength=BINS * points)
    return counts.reshape(points, BINS) / models


def _klom(name: str, arrays: Arrays) -> dict[str, float]:
    oracle = arrays[f"oracle_{name}_margins"]
    value = margin_divergence(oracle=oracle, unlearned=arrays[f"unlearned_{name}_margins"])
    floor = margin_divergence(oracle=oracle, unlearned=arrays[f"second_oracle_{name}_margins"])
    excess = value - floor
    error = float(np.std(excess, ddof=1)) / math.sqrt(excess.size) if excess.size > 1 else math.nan
    return {
        f"klom_{name}": float(np.mean(value)),
        f"klom_{name}_floor": float(np.mean(floor)),
        f"klom_{name}_excess": float(np.mean(excess)),
        f"klom_{name}_excess_se": error,
        f"klom_{name}_p95": float(np.percentile(value, 95)),
        f"klom_{name}_p95_floor": float(np.percentile(floor, 95)),
    }


def _forget(arrays: Arrays) -> dict[str, float]:
    """KLOM on the poisons: KL of the margins of oracles from those of unlearned models, beside oracles' from oracles'.

    Source: Georgiev, Rinberg, Park et al., ICLR 2025, arXiv:2410.23232.
    """
    return _klom("forget", arrays)


def _retain(arrays: Arrays) -> dict[str, float]:
    """KLOM on retained training rows."""
    return _klom("retain", arrays)


def _test(arrays: Arrays) -> dict[str, float]:
    """KLOM on held-out rows."""
    return _klom("test", arrays)


def _columns(name: str) -> dict[str, str]:
    rows = SETS[name]
    return {
        f"klom_{name}": f"mean KL(oracle || unlearned) of margins over {rows}, nats; lower is better, target: floor",
        f"klom_{name}_floor": f"the same of a second oracle ensemble over {rows}: what equal distributions score",
        f"klom_{name}_excess": f"KLOM over {rows} with its noise floor subtracted, nats; target 0, lower is better",
        f"klom_{name}_excess_se": "its standard error over the points, not over retrainings; NaN for a single point",
        f"klom_{name}_p95": f"95th percentile of the points' KL over {rows}, nats; lower is better, target: its floor",
        f"klom_{name}_p95_floor": f"the same percentile of a second oracle ensemble over {rows}: the target",
    }


for _name, _compute in (("forget", _forget), ("retain", _retain), ("test", _test)):
    METRICS.register(f"klom_{_name}")(
        Family(
            needs=tuple(f"{who}_{_name}_margins" for who in ("oracle", "unlearned", "second_oracle")),
            compute=_compute,
            columns=_columns(_name),
        )
    )
