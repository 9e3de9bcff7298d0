"""How fast a model learns the poisons again: what it still knows of them shows as a head start."""

from __future__ import annotations

import numpy as np

from unlearn_core.metrics import arrays as check
from unlearn_core.metrics.family import Arrays, Family
from unlearn_core.registry import METRICS

TOLERANCE_NATS = 0.1  # p of the poison label within 10 % of the corrupted model's, in the geometric mean


def _relearn(arrays: Arrays) -> dict[str, float]:
    """Passes over the poisons until their mean loss under the poison labels is nearly the corrupted model's again.

    relearn_losses (k,) holds that loss before relearning and at each check, relearn_at (k,) the passes made by then,
    relearn_target the loss to reach: the corrupted model's + 0.1 nats. How the model is trained is stated in
    `unlearn_core.scenarios.relearning`.

    Raises:
        ValueError: If the checks are not in increasing order, or are not as many as the losses.

    Source: Golatkar et al., ECCV 2020, arXiv:2003.02960. Deviations: fractions of a pass count; the margin is absolute,
    because a share of a loss near 0 is no margin.
    """
    losses, passes = check.scores(relearn_losses=arrays["relearn_losses"], relearn_at=arrays["relearn_at"])
    target = float(check.finite("relearn_target", arrays["relearn_target"], ndim=0))
    if losses.size != passes.size or np.any(np.diff(passes) <= 0):
        raise ValueError(f"relearn_at must increase and have {losses.size} values, but got {passes.tolist()!r}")
    reached = np.flatnonzero(losses <= target)
    return {
        "relearn_passes": float(passes[reached[0]] if reached.size else passes[-1]),
        "relearn_censored": float(reached.size == 0),
    }


METRICS.register("relearn")(
    Family(
        needs=("relearn_losses", "relearn_at", "relearn_target"),
        compute=_relearn,
        columns={
            "relearn_passes": "passes over all poisons until their loss is within 0.1 nats of the corrupted model's; "
            "small = poison left, target: the oracle's, noise floor: the second oracle's; the cap where censored",
            "relearn_censored": "1 if the cap on passes came first, else 0; target: the oracle's (where that is 1, "
            "both columns only tell who still knows the poisons)",
        },
    )
)
