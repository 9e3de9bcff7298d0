"""Can an attacker tell from the loss which poisons the model was trained on?"""

from __future__ import annotations

from unlearn_core.metrics import arrays as check
from unlearn_core.metrics.accuracy import cross_entropy
from unlearn_core.metrics.family import Arrays, Family
from unlearn_core.metrics.roc import advantage, auc, curve_columns, tpr_at_fpr, tpr_curve
from unlearn_core.registry import METRICS

FPR = 0.01
CURVE_COLUMNS = curve_columns("membership")


def _membership(arrays: Arrays) -> dict[str, float]:
    """Loss-threshold attack: trained poisons (members) against fresh poisons of the same kind (non-members).

    Both sides carry the attacker's labels, so the attack measures memory rather than a shift between clean and
    poisoned inputs. No value is good by being low: over-forgetting betrays the members too, so compare with the
    oracle's.

    Source: Yeom et al., IEEE CSF 2018, arXiv:1709.01604; low false-positive rates: Carlini et al., arXiv:2112.03570.
    """
    scores = {}
    for side, name in (("member", "forget"), ("nonmember", "unseen")):
        logits, targets = check.logits_and_targets(
            arrays[f"{name}_logits"], arrays[f"{name}_targets"], prefix=f"{name}_"
        )
        scores[side] = -cross_entropy(logits, targets)
    return {
        "membership_auc": auc(**scores),
        "membership_tpr": tpr_at_fpr(**scores, fpr=FPR),
        "membership_advantage": advantage(**scores),
        **{CURVE_COLUMNS[rate]: tpr for rate, tpr in tpr_curve(**scores).items()},
    }


METRICS.register("membership")(
    Family(
        needs=("forget_logits", "forget_targets", "unseen_logits", "unseen_targets"),
        compute=_membership,
        columns={
            "membership_auc": "ROC area of the loss-threshold attack on poisons; target: the oracle's, near 0.5 "
            "(below it: over-forgotten)",
            "membership_tpr": "share of poisons it catches at 1 % false positives, no interpolation; "
            "target: the oracle's, near 0.01",
            "membership_advantage": "its best TPR - FPR over all thresholds; target: the oracle's, near 0",
        }
        | {
            column: f"share of poisons it catches at {100 * rate:g} % false positives; target: the oracle's, near "
            f"{rate:g}; undefined (NaN) with fewer than {round(1 / rate)} fresh poisons"
            for rate, column in CURVE_COLUMNS.items()
        },
    )
)
