"""What a value of an attack's primary metric means, given the corrupted model and the oracle of its scenario.

Primary metrics are oriented: larger means more poison left. `None` stands for undefined (mostly: the attack did
not take, so there was nothing to remove) and passes through, so that it reaches the record as an empty field.
"""

from __future__ import annotations

import math

from unlearn_core import checks

UTILITY_WEIGHT = 10.0


def _finite(**values: float) -> None:
    for field, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"{field} must be a finite number, but got {value!r}")


def attack_succeeded(
    *, corrupted: float, corrupted_error: float, oracle: float, oracle_error: float, least_gap: float
) -> bool:
    """Whether the primary metric separates the corrupted model from the oracle, so that removal is defined.

    The gap corrupted - oracle must reach `least_gap` and three standard errors of the difference. A gap the other
    way is not a success of the attack, however large.

    Args:
        corrupted: The primary metric of the corrupted model.
        oracle: The primary metric of the oracle.
        corrupted_error: Standard error of `corrupted`, >= 0.
        oracle_error: Standard error of `oracle`, >= 0.
        least_gap: Smallest gap that matters, > 0, in the metric's unit.

    Raises:
        ValueError: If a value is not finite or out of range.
    """
    _finite(corrupted=corrupted, oracle=oracle)
    checks.not_negative(corrupted_error=corrupted_error, oracle_error=oracle_error)
    checks.positive(least_gap=least_gap)
    return corrupted - oracle >= max(least_gap, 3 * math.hypot(corrupted_error, oracle_error))


def removal(*, value: float, corrupted: float, oracle: float, took: bool) -> float | None:
    """Share of the poison's effect that is gone: (corrupted - value) / (corrupted - oracle).

    Args:
        value: The primary metric of the unlearned model.
        corrupted: The primary metric of the corrupted model.
        oracle: The primary metric of the oracle.
        took: Result of `attack_succeeded` for this scenario; the caller passes it, because it needs standard errors and
            is decided once per scenario.

    Returns:
        0 = nothing removed, 1 = like the oracle, > 1 = overshot, < 0 = worse than before; None if not `took`, or if
        `value` is NaN: the metric's own way to say that it is undefined for this model.

    Raises:
        ValueError: If a value is otherwise not finite, or `took` although corrupted does not exceed oracle.
    """
    if not took or math.isnan(value):
        return None
    _finite(value=value, corrupted=corrupted, oracle=oracle)
    if corrupted <= oracle:
        raise ValueError(
            f"corrupted must exceed oracle where the attack succeeded, but got {corrupted!r} and {oracle!r}"
        )
    return (corrupted - value) / (corrupted - oracle)


def efficacy(removal: float | None) -> float | None:
    """1 - |1 - removal|: closeness to the oracle, at most 1.

    Overshooting betrays the removal just as well as a remainder does, so it is not rewarded. None stays None.
    """
    return None if removal is None else 1 - abs(1 - removal)


def utility_gap(*, oracle_accuracy: float, accuracy: float) -> float:
    """Oracle's minus the model's test accuracy; positive = unlearning cost utility.

    Raises:
        ValueError: If an accuracy is outside [0, 1].
    """
    checks.in_range("oracle_accuracy", oracle_accuracy, 0, 1)
    checks.in_range("accuracy", accuracy, 0, 1)
    return oracle_accuracy - accuracy


def score(*, efficacy: float | None, utility_gap: float, tolerance: float) -> float | None:
    """What tuning maximises: efficacy - 10 * max(0, utility_gap - tolerance).

    Every method can buy efficacy by wrecking the model, so tuning on efficacy alone would choose wrecks. Within the
    tolerance utility is free, because such a gap is noise or acceptable. Beyond it one point of accuracy costs as
    much as a tenth of the poison: steep enough that a wreck loses to doing nothing (score 0) even with a perfect
    removal once its gap exceeds tolerance + 0.1, yet gradual, so that a search sees which of two bad settings is
    the better one.

    Args:
        efficacy: At most 1; None stays None.
        utility_gap: Difference of accuracies, in [-1, 1].
        tolerance: Gap that is free, >= 0.

    Raises:
        ValueError: If `utility_gap` is not finite or `tolerance` is negative.
    """
    _finite(utility_gap=utility_gap)
    checks.not_negative(tolerance=tolerance)
    return None if efficacy is None else efficacy - UTILITY_WEIGHT * max(0.0, utility_gap - tolerance)
