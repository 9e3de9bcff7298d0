"""How alike the answers of a model and the oracle are, row by row."""

from __future__ import annotations

import numpy as np

from unlearn_core.metrics import arrays as check
from unlearn_core.metrics.family import COUPLED, Arrays, Family
from unlearn_core.metrics.softmax import jensen_shannon, log_softmax
from unlearn_core.registry import METRICS


def _logits(arrays: Arrays, name: str, like: np.ndarray | None = None) -> np.ndarray:
    logits = check.finite(name, arrays[name], ndim=2)
    if like is not None and logits.shape != like.shape:
        raise ValueError(f"{name} must have shape {like.shape} as the model's logits, but has {logits.shape}")
    return logits


def _agreement(arrays: Arrays) -> dict[str, float]:
    """Share of equal predictions, and Jensen-Shannon divergence, between the model and the oracle.

    Source: agreement with a retrained model, Chundawat et al., AAAI 2023, arXiv:2205.08096 (there: divergence on the
    forget set).
    """
    values = {}
    for name in ("test", "forget"):
        own = _logits(arrays, f"{name}_logits")
        oracle = _logits(arrays, f"oracle_{name}_logits", own)
        values[f"agreement_{name}"] = float(np.mean(own.argmax(axis=1) == oracle.argmax(axis=1)))
        values[f"js_{name}"] = float(np.mean(jensen_shannon(log_softmax(own), log_softmax(oracle))))
    return values


def _zrf(arrays: Arrays) -> dict[str, float]:
    """Zero-retrain forgetting: likeness to a network that was never trained, on the poisons.

    1 - the mean over rows of the Jensen-Shannon divergence, which sums over classes; the reference code averages over
    them, so that its value tends to 1 with their number. A high value is no success in itself: the oracle knows the
    clean rows that resemble the poisons, so it is not like an untrained network either.

    Source: Chundawat et al., AAAI 2023, arXiv:2205.08096.
    """
    own = _logits(arrays, "forget_logits")
    untrained = _logits(arrays, "untrained_forget_logits", own)
    return {"zrf": 1 - float(np.mean(jensen_shannon(log_softmax(own), log_softmax(untrained))))}


METRICS.register("agreement")(
    Family(
        needs=("test_logits", "forget_logits", "oracle_test_logits", "oracle_forget_logits"),
        compute=_agreement,
        columns={
            "agreement_test": "share of held-out rows predicted as the oracle does; higher is better, target 1, start: "
            "the corrupted model's" + COUPLED,
            "js_test": "mean Jensen-Shannon divergence from the oracle on held-out rows, bits in [0, 1]; lower is "
            "better, target 0, start: the corrupted model's" + COUPLED,
            "agreement_forget": "share of all poisons predicted as the oracle does; higher is better, target 1, start: "
            "the corrupted model's" + COUPLED,
            "js_forget": "mean Jensen-Shannon divergence from the oracle on all poisons, bits in [0, 1]; lower is "
            "better, target 0, start: the corrupted model's" + COUPLED,
        },
    )
)
METRICS.register("zrf")(
    Family(
        needs=("forget_logits", "untrained_forget_logits"),
        compute=_zrf,
        columns={
            "zrf": "1 - mean Jensen-Shannon divergence (bits) from an untrained network on all poisons, in [0, 1]; "
            "target: the oracle's (above it: over-forgotten), noise floor: the second oracle's",
        },
    )
)
