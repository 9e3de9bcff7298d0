"""How many poisons a membership attack fitted on clean rows takes for rows that were never trained on."""

from __future__ import annotations

import numpy as np

from unlearn_core.metrics import arrays as check
from unlearn_core.metrics.accuracy import cross_entropy
from unlearn_core.metrics.family import Arrays, Family
from unlearn_core.metrics.roc import best_threshold
from unlearn_core.metrics.softmax import entropy, log_softmax, modified_entropy
from unlearn_core.registry import METRICS

Sides = dict[str, tuple[np.ndarray, np.ndarray]]  # logits and targets of "retain", "test" and "forget"


def sides(arrays: Arrays, *, model: str = "") -> Sides:
    """Checked logits and targets of three sets: retain and test cut to equally many rows, and all of forget.

    The rows kept are a fixed random choice, not the first ones, whatever the order of the set.

    Args:
        arrays: Those of the evaluation, by name.
        model: "" for the measured model, "oracle_" for the oracle: what its logits' names start with.
    """
    made = {
        name: check.logits_and_targets(
            arrays[f"{model}{name}_logits"], arrays[f"{name}_targets"], prefix=f"{model}{name}_"
        )
        for name in ("retain", "test", "forget")
    }
    rows = min(len(made[name][1]) for name in ("retain", "test"))
    for name in ("retain", "test"):
        logits, targets = made[name]
        kept = np.random.default_rng(0).permutation(len(targets))[:rows]
        made[name] = logits[kept], targets[kept]
    return made


def efficacy_of(scores: dict[str, np.ndarray]) -> float:
    """Share of forget rows called non-members by the threshold that best separates retain from test rows.

    Args:
        scores: Of "retain", "test" and "forget", shape (n,) each; higher means "more member".

    Returns:
        In [0, 1]; 1 also where no threshold is better than chance: nobody is called a member then.
    """
    threshold = best_threshold(member=scores["retain"], nonmember=scores["test"])
    return float(np.mean(scores["forget"] < threshold))


def confidence_efficacy(parts: Sides) -> float:
    """`efficacy_of` the confidence p_y; ranked by log p_y, which keeps values near 1 apart."""
    return efficacy_of({name: -cross_entropy(*part) for name, part in parts.items()})


def _mia_efficacy(arrays: Arrays) -> dict[str, float]:
    """Membership attacks by one threshold each, fitted on clean training rows against held-out rows of the same model.

    Scored on the poisons alone, which are not part of the fit, under their poison labels. The efficacy of an attack is
    the share that it calls non-members. Poisons are not drawn as clean rows are, so that even the oracle's efficacy is
    not 1 - its false positives: only the difference from the oracle's means anything.

    Source: Song and Mittal, USENIX Security 2021, arXiv:2003.10595; as an unlearning metric: Jia et al., NeurIPS 2023,
    arXiv:2304.04934. Deviations: a threshold where the latter have a support vector machine; one for all classes, where
    the former fit one per class, for which small sets have too few rows; sets are sampled to equal size, not cut.
    """
    parts = sides(arrays)
    logs = {name: (log_softmax(logits), targets) for name, (logits, targets) in parts.items()}
    wrong = parts["forget"][0].argmax(axis=1) != parts["forget"][1]
    return {
        "mia_correctness": float(np.mean(wrong)),
        "mia_confidence": confidence_efficacy(parts),
        "mia_entropy": efficacy_of({name: -entropy(log_p) for name, (log_p, _) in logs.items()}),
        "mia_modified_entropy": efficacy_of({name: -modified_entropy(*part) for name, part in logs.items()}),
    }


SETS = ("retain_logits", "retain_targets", "test_logits", "test_targets", "forget_logits", "forget_targets")
_TARGET = "higher = more forgotten, target: the oracle's (above it: over-forgotten), noise floor: the second oracle's"
METRICS.register("mia_efficacy")(
    Family(
        needs=SETS,
        compute=_mia_efficacy,
        columns={
            "mia_correctness": "share of all poisons called non-members because their poison label is not predicted, "
            f"1 - forget_accuracy; {_TARGET}",
            "mia_confidence": f"share of all poisons called non-members by a threshold on p of the label; {_TARGET}",
            "mia_entropy": f"share of all poisons called non-members by a threshold on the entropy; {_TARGET}",
            "mia_modified_entropy": "share of all poisons called non-members by a threshold on the modified entropy; "
            f"{_TARGET}",
        },
    )
)
