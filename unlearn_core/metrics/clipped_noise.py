"""What the Gaussian score would say if it were taken with the noise that clipping left: a check, not a measure."""

from __future__ import annotations

import math

import numpy as np

from unlearn_core.metrics import arrays as check
from unlearn_core.metrics.family import Arrays, Family
from unlearn_core.registry import METRICS


def _clipped_noise(arrays: Arrays) -> dict[str, float]:
    """Score of Gaussian poisons by their clipped noise, which depends on the image, as gradients do: no exact null.

    Shows the false alarm that the score of `gaussian`, which keeps the noise as it was drawn, does not give.
    """
    if np.size(arrays["clipped_noise_scores"]) == 0:
        return {"gaussian_clipped_z": math.nan}
    (score,) = check.scores(clipped_noise_scores=arrays["clipped_noise_scores"])
    return {"gaussian_clipped_z": math.sqrt(score.size) * float(np.mean(score))}


METRICS.register("clipped_noise")(
    Family(
        needs=("clipped_noise_scores",),
        compute=_clipped_noise,
        columns={
            "gaussian_clipped_z": "gaussian_z if the noise were taken as clipping left it: far from 0 even without "
            "poison, so a check of that mistake; undefined (NaN) if all input gradients vanish",
        },
    )
)
