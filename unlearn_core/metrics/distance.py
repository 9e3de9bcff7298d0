"""How far the parameters have moved, and where to."""

from __future__ import annotations

import math

import numpy as np

from unlearn_core.metrics import arrays as check
from unlearn_core.metrics.family import COUPLED, Arrays, Family
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


def _direction(arrays: Arrays) -> dict[str, float]:
    """Position of the parameters along the line from the corrupted model to the oracle, and distance from that line.

    Both in units of the distance d between those two, from the sides of the triangle: with a and b the L2 distances
    from the corrupted model and from the oracle, along = (a^2 + d^2 - b^2) / 2 d^2 and across = sqrt((a / d)^2 -
    along^2). Below about 1e-6, `across` is lost in rounding.
    """
    _, from_corrupted = _pair("shift_from_corrupted", arrays["shift_from_corrupted"])
    _, from_oracle = _pair("shift_from_oracle", arrays["shift_from_oracle"])
    _, apart = _pair("oracle_from_corrupted", arrays["oracle_from_corrupted"])
    if apart == 0:
        return {"shift_along": math.nan, "shift_across": math.nan}
    near, far = (from_corrupted / apart) ** 2, (from_oracle / apart) ** 2
    along = (near + 1 - far) / 2
    return {"shift_along": along, "shift_across": math.sqrt(max(0.0, near - along**2))}


METRICS.register("distance")(
    Family(
        needs=("shift_from_corrupted", "shift_from_oracle"),
        compute=_distance,
        columns={
            "l1_from_corrupted": "L1 distance of the parameters from the corrupted model; 0 = nothing changed",
            "l2_from_corrupted": "L2 distance of the parameters from the corrupted model; 0 = nothing changed",
            "l1_from_oracle": "L1 distance of the parameters from the oracle; lower is better, target 0" + COUPLED,
            "l2_from_oracle": "L2 distance of the parameters from the oracle; lower is better, target 0" + COUPLED,
        },
    )
)
METRICS.register("direction")(
    Family(
        needs=("shift_from_corrupted", "shift_from_oracle", "oracle_from_corrupted"),
        compute=_direction,
        columns={
            "shift_along": "parameter shift towards the oracle as a share of the way: 0 at the corrupted model, target "
            "1; undefined where both have the same parameters" + COUPLED,
            "shift_across": "L2 distance from the line through both, in units of their distance; lower is better, "
            "target 0; undefined as shift_along" + COUPLED,
        },
    )
)
