"""How far the parameters have moved."""

from __future__ import annotations

import numpy as np

from unlearn_core.metrics import arrays as check
from unlearn_core.metrics.family import Arrays, Family
from unlearn_core.registry import METRICS


def _pair(name: str, values: np.ndarray) -> tuple[float, float]:
    values = check.finite(name, values, ndim=1)
    if values.shape != (2,) or values.min() < 0:
        raise ValueError(f"{name} must be two distances [L1, L2] >= 0, but got {values.tolist()!r}")
    return float(values[0]), float(values[1])


def _distance(arrays: Arrays) -> dict[str, float]:
    """L1 and L2 distance of the parameters from the corrupted model and from the oracle."""
    l1_corrupted, l2_corrupted = _pair("shift_from_corrupted", arrays["shift_from_corrupted"])
    l1_oracle, l2_oracle = _pair("shift_from_oracle", arrays["shift_from_oracle"])
    return {
        "l1_from_corrupted": l1_corrupted,
        "l2_from_corrupted": l2_corrupted,
        "l1_from_oracle": l1_oracle,
        "l2_from_oracle": l2_oracle,
    }


METRICS.register("distance")(
    Family(
        needs=("shift_from_corrupted", "shift_from_oracle"),
        compute=_distance,
        columns={
            "l1_from_corrupted": "L1 distance of the parameters from the corrupted model; 0 = nothing changed",
            "l2_from_corrupted": "L2 distance of the parameters from the corrupted model; 0 = nothing changed",
            "l1_from_oracle": "L1 distance of the parameters from the oracle; target: a second oracle's, not 0",
            "l2_from_oracle": "L2 distance of the parameters from the oracle; target: a second oracle's, not 0",
        },
    )
)
