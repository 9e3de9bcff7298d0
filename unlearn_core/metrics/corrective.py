"""Are the corrupted rows put right, and is the rest of the model still good?"""

from __future__ import annotations

import numpy as np

from unlearn_core.metrics import arrays as check
from unlearn_core.metrics.accuracy import share_correct
from unlearn_core.metrics.family import Arrays, Family
from unlearn_core.metrics.proportions import share_error
from unlearn_core.registry import METRICS


def _corrective(arrays: Arrays) -> dict[str, float]:
    """Mislabelled poisons, discovered or not, that get their true label, and that share times the held-out accuracy.

    Where an attack leaves the labels right there is nothing to heal, and healed is undefined.
    The poisons are shown as they were trained on, trigger or noise included. On held-out rows the same literature has
    Acc_corr, accuracy where the corruption acts (here `backdoor_corrected_accuracy`, and 1 - `interclass_error`), and
    Acc_retain, accuracy elsewhere (`test_accuracy`, and `other_classes_accuracy`).

    Source: Schoepf et al., 2025, arXiv:2505.17730; Goel et al., TMLR 2024, arXiv:2402.14015.
    """
    utility = share_correct(*check.logits_and_targets(arrays["test_logits"], arrays["test_targets"], prefix="test_"))
    logits = check.finite("forget_logits", arrays["forget_logits"], ndim=2)
    true = check.classes("forget_true", arrays["forget_true"], rows=logits.shape[0], count=logits.shape[1])
    given = check.classes("forget_targets", arrays["forget_targets"], rows=len(logits), count=logits.shape[1])
    wrong = given != true
    rows, right = int(wrong.sum()), int(np.sum((logits.argmax(axis=1) == true) & wrong))
    healed = right / rows if rows else float("nan")
    return {
        "healed": healed,
        "healed_se": share_error(successes=right, trials=rows) if rows else float("nan"),
        "utility": utility,
        "utility_times_healed": utility * healed,
    }


METRICS.register("corrective")(
    Family(
        needs=("test_logits", "test_targets", "forget_logits", "forget_targets", "forget_true"),
        compute=_corrective,
        columns={
            "healed": "share of the mislabelled poisons, discovered or not, predicted with their true label; higher is "
            "better, target: the oracle's, noise floor: the second oracle's; undefined where all labels are right",
            "healed_se": "Agresti-Coull standard error of healed; never 0; undefined as healed",
            "utility": "accuracy on the held-out rows, as test_accuracy; higher is better, target: the oracle's, noise "
            "floor: the second oracle's",
            "utility_times_healed": "product of the two; higher is better, target: the oracle's, noise floor: the "
            "second oracle's; undefined as healed",
        },
    )
)
