"""What gradient canceling achieved when it was crafted; facts of the scenario, the same for every model."""

from __future__ import annotations

from unlearn_core.metrics import arrays as check
from unlearn_core.metrics.family import Arrays, Family
from unlearn_core.registry import METRICS


def _canceling(arrays: Arrays) -> dict[str, float]:
    """Reachability of the weights that the poison aims at, and how well their gradient is cancelled.

    Raises:
        ValueError: If `canceling` is not [tau >= 0, share > 0, residual >= 0].

    Source: Lu, Kamath, Yu, ICML 2023, arXiv:2303.03592.
    """
    facts = check.finite("canceling", arrays["canceling"], ndim=1)
    if facts.shape != (3,) or facts.min() < 0 or facts[1] == 0:
        raise ValueError(f"canceling must be [tau >= 0, share > 0, residual >= 0], but got {facts.tolist()!r}")
    return {"canceling_tau": facts[0] / facts[1], "canceling_residual": facts[2]}


METRICS.register("canceling")(
    Family(
        needs=("canceling",),
        compute=_canceling,
        columns={
            "canceling_tau": "least poison share that can reach the attacker's weights, over the share there is; "
            "above 1 they are out of reach; a fact of the attack, the same for all models",
            "canceling_residual": "norm of the gradient left at the attacker's weights, over the clean one; 0 = "
            "stationary; a fact of the attack, the same for all models",
        },
    )
)
