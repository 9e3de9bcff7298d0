"""Whether a backdoor answers its trigger alone, or anything that stands in the same place."""

from __future__ import annotations

import numpy as np

from unlearn_core.metrics import arrays as check
from unlearn_core.metrics.family import Arrays, Family
from unlearn_core.metrics.proportions import share_error
from unlearn_core.registry import METRICS


def _decoy(arrays: Arrays) -> dict[str, float]:
    """Success of a trigger that no poison carries, and of none at all.

    Source: Wan et al., ICML 2023, arXiv:2305.00944, whose backdoor is one phrase.
    """
    logits, targets, _ = check.aimed(arrays, "decoy")
    hits = int(np.sum(logits.argmax(axis=1) == targets))
    return {
        "decoy_success": hits / targets.size,
        "decoy_success_se": share_error(successes=hits, trials=targets.size),
        "untriggered_success": _untriggered(arrays, np.unique(targets)),
    }


def _untriggered(arrays: Arrays, wanted: np.ndarray) -> float:
    """Mean over the wanted classes of the share of held-out rows of the others that are predicted as it."""
    logits, true = check.logits_and_targets(arrays["test_logits"], arrays["test_targets"], prefix="test_")
    predicted = logits.argmax(axis=1)
    if any((true == label).all() for label in wanted):
        return float("nan")
    return float(np.mean([np.mean(predicted[true != label] == label) for label in wanted]))


METRICS.register("decoy")(
    Family(
        needs=("decoy_logits", "decoy_targets", "decoy_true", "test_logits", "test_targets"),
        compute=_decoy,
        columns={
            "decoy_success": "share of rows with a decoy in the trigger's place that are predicted as the attacker's "
            "class; near untriggered_success where the backdoor answers its trigger alone",
            "decoy_success_se": "Agresti-Coull standard error of decoy_success; never 0",
            "untriggered_success": "share of plain held-out rows of other classes predicted as the attacker's class, "
            "the floor of backdoor_success; NaN if there are none",
        },
    )
)
