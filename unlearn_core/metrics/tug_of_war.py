"""Composite scores: accuracy on forget, retain and test rows, and a membership attack, against the oracle's."""

from __future__ import annotations

import numpy as np

from unlearn_core.metrics.family import Arrays, Family
from unlearn_core.metrics.mia_efficacy import SETS, confidence_efficacy, sides
from unlearn_core.registry import METRICS


def _accuracies(arrays: Arrays, model: str) -> dict[str, float]:
    values = {}  # of arrays that `sides` has checked
    for name in ("forget", "retain", "test"):
        right = np.asarray(arrays[f"{model}{name}_logits"]).argmax(axis=1) == arrays[f"{name}_targets"]
        values[name] = float(np.mean(right))
    return values


def _tug_of_war(arrays: Arrays) -> dict[str, float]:
    """Products and mean of the gaps |model - oracle| in accuracy (forget, retain, test) and in membership efficacy.

    tow = (1 - forget gap)(1 - retain gap)(1 - test gap); tow_mia has the gap in `mia_confidence` instead of the forget
    gap; average_gap is the mean of all four. Forget accuracy is that of the poison labels.

    Source: ToW and ToW-MIA: Zhao et al., NeurIPS 2024, arXiv:2406.01257; average gap: Fan et al., ICLR 2024,
    arXiv:2310.12508. Deviation: the attack is a threshold on the confidence, not a support vector machine.
    """
    attacks = [confidence_efficacy(sides(arrays, model=model)) for model in ("", "oracle_")]
    own, oracle = _accuracies(arrays, ""), _accuracies(arrays, "oracle_")
    gaps = {name: abs(own[name] - oracle[name]) for name in own}
    mia = abs(attacks[0] - attacks[1])
    kept = (1 - gaps["retain"]) * (1 - gaps["test"])
    return {
        "tow": (1 - gaps["forget"]) * kept,
        "tow_mia": (1 - mia) * kept,
        "average_gap": (sum(gaps.values()) + mia) / 4,
    }


METRICS.register("tug_of_war")(
    Family(
        needs=(*SETS, "oracle_retain_logits", "oracle_test_logits", "oracle_forget_logits"),
        compute=_tug_of_war,
        columns={
            "tow": "product of 1 - |accuracy gap to the oracle| on forget, retain and test rows, in [0, 1]; higher is "
            "better, target 1, noise floor: the second oracle's",
            "tow_mia": "the same with the gap in mia_confidence instead of that in forget accuracy; higher is better, "
            "target 1, noise floor: the second oracle's",
            "average_gap": "mean of the three accuracy gaps and that in mia_confidence, in [0, 1]; lower is better, "
            "target 0, noise floor: the second oracle's",
        },
    )
)
