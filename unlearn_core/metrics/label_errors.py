"""Errors on clean held-out rows: what wrong labels in the training set leave behind."""

from __future__ import annotations

import numpy as np

from unlearn_core.metrics import arrays as check
from unlearn_core.metrics.family import Arrays, Family
from unlearn_core.metrics.proportions import share_error
from unlearn_core.registry import METRICS


def _test_error(arrays: Arrays) -> dict[str, float]:
    """Share of wrong predictions on held-out rows, for attacks that want a bad model."""
    logits, targets = check.logits_and_targets(arrays["test_logits"], arrays["test_targets"], prefix="test_")
    wrong = int(np.sum(logits.argmax(axis=1) != targets))
    return {
        "test_error": wrong / targets.size,
        "test_error_se": share_error(successes=wrong, trials=targets.size),
    }


def _pair(values: np.ndarray, classes: int) -> np.ndarray:
    """Two different class indices."""
    values = np.asarray(values)
    if values.shape != (2,):
        raise ValueError(f"confused_classes must hold two classes, but has shape {values.shape}")
    pair = check.classes("confused_classes", values, rows=2, count=classes)
    if pair[0] == pair[1]:
        raise ValueError(f"confused_classes must be different, but both are {pair[0]}")
    return pair


def _interclass_confusion(arrays: Arrays) -> dict[str, float]:
    """How often two classes are taken for each other on held-out rows.

    Raises:
        ValueError: If there are no rows of the two classes.

    Source: the IC test, Goel, Prabhu et al., 2022, arXiv:2201.06640.
    """
    logits, targets = check.logits_and_targets(arrays["test_logits"], arrays["test_targets"], prefix="test_")
    first, second = _pair(arrays["confused_classes"], logits.shape[1])
    predicted = logits.argmax(axis=1)
    confused = int(
        np.sum((targets == first) & (predicted == second)) + np.sum((targets == second) & (predicted == first))
    )
    inside = (targets == first) | (targets == second)
    rows = int(inside.sum())
    if rows == 0:
        raise ValueError(f"test_targets must have rows of the confused classes {first} and {second}, but has none")
    wrong = predicted != targets
    return {
        "interclass_confusion": confused / rows,
        "interclass_confusion_se": share_error(successes=confused, trials=rows),
        "interclass_error": float(np.mean(wrong[inside])),
        "other_classes_accuracy": float(np.mean(~wrong[~inside])) if rows < targets.size else float("nan"),
    }


METRICS.register("test_error")(
    Family(
        needs=("test_logits", "test_targets"),
        compute=_test_error,
        columns={
            "test_error": "share of wrong predictions on the held-out rows, 1 - test_accuracy; larger = more poison "
            "left, target: the oracle's",
            "test_error_se": "Agresti-Coull standard error of test_error; never 0",
        },
    )
)
METRICS.register("interclass_confusion")(
    Family(
        needs=("test_logits", "test_targets", "confused_classes"),
        compute=_interclass_confusion,
        columns={
            "interclass_confusion": "share of held-out rows of the two confused classes that are taken for the other "
            "one (FGT-ERR as a rate); larger = more poison left, target: the oracle's",
            "interclass_confusion_se": "Agresti-Coull standard error of interclass_confusion; never 0",
            "interclass_error": "share of held-out rows of the two classes that are predicted wrongly in any way "
            "(IC-ERR); target: the oracle's",
            "other_classes_accuracy": "accuracy on the held-out rows of all other classes; higher is better, target: "
            "the oracle's; undefined where there are none",
        },
    )
)
