"""Whether single images that an attacker picked are taken for the class that it wants."""

from __future__ import annotations

import numpy as np

from unlearn_core.metrics import arrays as check
from unlearn_core.metrics.family import Arrays, Family
from unlearn_core.metrics.proportions import share_error
from unlearn_core.metrics.softmax import log_softmax
from unlearn_core.registry import METRICS


def _targeted(arrays: Arrays) -> dict[str, float]:
    """Hits on an attacker's targets, and how often other rows of their class are taken for the same one.

    Source: Geiping et al., ICLR 2021, arXiv:2009.02276.
    """
    logits, wanted, true = check.aimed(arrays, "targeted")
    predicted = logits.argmax(axis=1)
    hits = int(np.sum(predicted == wanted))
    return {
        "target_hits": hits / wanted.size,
        "target_hits_se": share_error(successes=hits, trials=wanted.size),
        "target_confidence": float(np.mean(np.exp(log_softmax(logits)[np.arange(wanted.size), wanted]))),
        "target_accuracy": float(np.mean(predicted == true)),
        "target_base_rate": _base_rate(arrays, true, wanted),
    }


def _base_rate(arrays: Arrays, true: np.ndarray, wanted: np.ndarray) -> float:
    """Mean over targets of the share of held-out rows of the same true class that are predicted as the wanted one."""
    logits, targets = check.logits_and_targets(arrays["test_logits"], arrays["test_targets"], prefix="test_")
    predicted = logits.argmax(axis=1)
    if not np.isin(true, targets).all():
        return float("nan")
    return float(np.mean([np.mean(predicted[targets == t] == w) for t, w in zip(true, wanted, strict=True)]))


def _matching(arrays: Arrays) -> dict[str, float]:
    """How well the poisons' gradient was matched when they were crafted, at the attacker's own model.

    Raises:
        ValueError: If `matching` is not [first, last] objective in [0, 2].

    Source: Geiping et al., ICLR 2021, arXiv:2009.02276.
    """
    facts = check.finite("matching", arrays["matching"], ndim=1)
    if facts.shape != (2,) or facts.min() < -1e-6 or facts.max() > 2 + 1e-6:
        raise ValueError(f"matching must be [first, last] objective in [0, 2], but got {facts.tolist()!r}")
    return {"matching_first": facts[0], "matching_last": facts[1]}


METRICS.register("targeted")(
    Family(
        needs=("targeted_logits", "targeted_targets", "targeted_true", "test_logits", "test_targets"),
        compute=_targeted,
        columns={
            "target_hits": "share of the attacker's targets predicted as the class it wants; larger = more poison "
            "left, target: the oracle's, near 0",
            "target_hits_se": "Agresti-Coull standard error of target_hits, as if targets were independent; never 0",
            "target_confidence": "mean probability of the class the attacker wants, over its targets; smoother than "
            "target_hits, lower is better, target: the oracle's",
            "target_accuracy": "share of the attacker's targets predicted with their true label; higher is better, "
            "target: the oracle's",
            "target_base_rate": "share of held-out rows of the targets' class that are taken for the same wrong class; "
            "what target_hits would be by ordinary confusion; NaN if there are no such rows",
        },
    )
)

METRICS.register("matching")(
    Family(
        needs=("matching",),
        compute=_matching,
        columns={
            "matching_first": "1 - cosine of poison gradient and wanted gradient where the search began, in [0, 2]; a "
            "fact of the attack, the same for all models",
            "matching_last": "the same where it ended; 0 = parallel; a fact of the attack, the same for all models",
        },
    )
)
