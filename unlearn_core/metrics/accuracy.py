"""Accuracy and loss on test, retained and poison rows."""

from __future__ import annotations

import numpy as np

from unlearn_core.metrics import arrays as check
from unlearn_core.metrics.family import Arrays, Family
from unlearn_core.metrics.proportions import share_error
from unlearn_core.registry import METRICS


def cross_entropy(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Cross-entropy of each row in nats, in float64 and without overflow or cancellation to a negative loss.

    Args:
        logits: Shape (n, classes), finite.
        targets: Class indices, shape (n,).

    Returns:
        Shape (n,), each >= 0.

    Raises:
        ValueError: If an array is empty, of the wrong shape or type, not finite, or a class is out of range.
    """
    logits, targets = check.logits_and_targets(logits, targets)
    rows, best = np.arange(len(targets)), logits.argmax(axis=1)
    below = logits - logits[rows, best][:, None]  # log-sum-exp with the largest logit as reference
    others = np.exp(below)
    others[rows, best] = 0.0  # the best class contributes exp(0) = 1; log1p keeps the digits of losses near 0
    losses: np.ndarray = np.log1p(others.sum(axis=1)) - below[rows, targets]
    return losses


def share_correct(logits: np.ndarray, targets: np.ndarray) -> float:
    """Share of rows whose largest logit is the target's, in [0, 1]; the first of equal logits is the prediction.

    Args, raises: as `cross_entropy`.
    """
    logits, targets = check.logits_and_targets(logits, targets)
    return float(np.mean(logits.argmax(axis=1) == targets))


def _reduce(name: str, arrays: Arrays) -> dict[str, float]:
    logits, targets = check.logits_and_targets(arrays[f"{name}_logits"], arrays[f"{name}_targets"], prefix=f"{name}_")
    return {
        f"{name}_accuracy": share_correct(logits, targets),
        f"{name}_loss": float(np.mean(cross_entropy(logits, targets))),
    }


def _test(arrays: Arrays) -> dict[str, float]:
    """Accuracy and loss on held-out rows: what unlearning must not cost."""
    return _reduce("test", arrays)


def _retain(arrays: Arrays) -> dict[str, float]:
    """Accuracy and loss on a fixed probe of retained training rows."""
    return _reduce("retain", arrays)


def _forget(arrays: Arrays) -> dict[str, float]:
    """Accuracy and loss on the poisons as trained on, against their poison labels."""
    values, rows = _reduce("forget", arrays), len(arrays["forget_targets"])
    right = round(values["forget_accuracy"] * rows)
    return values | {"forget_accuracy_se": share_error(successes=right, trials=rows)}


METRICS.register("accuracy_test")(
    Family(
        needs=("test_logits", "test_targets"),
        compute=_test,
        columns={
            "test_accuracy": "accuracy on the held-out rows; higher is better, target: the oracle's",
            "test_loss": "mean cross-entropy on the held-out rows, nats; lower is better, target: the oracle's",
        },
    )
)
METRICS.register("accuracy_retain")(
    Family(
        needs=("retain_logits", "retain_targets"),
        compute=_retain,
        columns={
            "retain_accuracy": "accuracy on a fixed probe of retained training rows; target: the oracle's",
            "retain_loss": "mean cross-entropy on that probe, nats; target: the oracle's",
        },
    )
)
METRICS.register("accuracy_forget")(
    Family(
        needs=("forget_logits", "forget_targets"),
        compute=_forget,
        columns={
            "forget_accuracy": "share of all poisons predicted with their poison label; where that is wrong: larger = "
            "more poison left; target: the oracle's, not 0",
            "forget_accuracy_se": "Agresti-Coull standard error of forget_accuracy; never 0",
            "forget_loss": "mean cross-entropy of all poisons under their poison label, nats; target: the oracle's",
        },
    )
)
