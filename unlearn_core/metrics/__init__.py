"""Metrics: pure functions of arrays, importable without torch.

Importing this package registers every family in `unlearn_core.registry.METRICS`.
"""

from unlearn_core.metrics import (  # noqa: F401  (they register)
    agreement,
    backdoor,
    canceling,
    clipped_noise,
    corrective,
    decoy,
    distance,
    gaussian,
    klom,
    label_errors,
    membership,
    mia_efficacy,
    neurips,
    relearn,
    targeted,
    tug_of_war,
    ulira,
)
from unlearn_core.metrics.accuracy import cross_entropy, share_correct
from unlearn_core.metrics.all_families import columns, compute_all, families, measures_poisons
from unlearn_core.metrics.family import Family
from unlearn_core.metrics.normal import ks_distance
from unlearn_core.metrics.outcome import attack_succeeded, efficacy, removal, score, utility_gap
from unlearn_core.metrics.proportions import share_error, wilson_interval
from unlearn_core.metrics.roc import advantage, auc, tpr_at_fpr

__all__ = [
    "Family",
    "advantage",
    "attack_succeeded",
    "auc",
    "columns",
    "compute_all",
    "cross_entropy",
    "efficacy",
    "families",
    "ks_distance",
    "measures_poisons",
    "removal",
    "score",
    "share_correct",
    "share_error",
    "tpr_at_fpr",
    "utility_gap",
    "wilson_interval",
]
