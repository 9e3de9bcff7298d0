"""Checks of the arrays that metrics reduce. Every message names the array, what came, and what would be right."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def finite(name: str, values: np.ndarray, *, ndim: int) -> np.ndarray:
    """`values` as float64 with `ndim` dimensions.

    Raises:
        ValueError: If it is empty, has other dimensions, is not numeric, or has NaN or infinity.
    """
    values = np.asarray(values)
    if values.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension(s), but has shape {values.shape}")
    if values.size == 0:
        raise ValueError(f"{name} must not be empty, but has shape {values.shape}")
    if values.dtype.kind not in "biuf":
        raise ValueError(f"{name} must hold real numbers, but has dtype {values.dtype}")
    bad = int(np.sum(~np.isfinite(values)))
    if bad:
        raise ValueError(f"{name} must be finite, but {bad} of {values.size} values are NaN or infinite")
    return values.astype(np.float64)


def classes(name: str, values: np.ndarray, *, rows: int, count: int) -> np.ndarray:
    """`values` as int64 class indices in [0, count), shape (rows,).

    Raises:
        ValueError: If shape, dtype or range differ.
    """
    values = np.asarray(values)
    if values.shape != (rows,):
        raise ValueError(f"{name} must have shape ({rows},), one class per row of logits, but has {values.shape}")
    if values.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold class indices, but has dtype {values.dtype}")
    if values.min() < 0 or values.max() >= count:
        raise ValueError(f"{name} must lie in [0, {count - 1}], but spans [{values.min()}, {values.max()}]")
    return values.astype(np.int64)


def logits_and_targets(logits: np.ndarray, targets: np.ndarray, *, prefix: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Checked float64 logits (n, classes) and int64 targets (n,); messages put `prefix` before both names."""
    logits = finite(f"{prefix}logits", logits, ndim=2)
    return logits, classes(f"{prefix}targets", targets, rows=logits.shape[0], count=logits.shape[1])


def scores(**arrays: np.ndarray) -> list[np.ndarray]:
    """Each array as finite float64, shape (n,), in the order given."""
    return [finite(name, values, ndim=1) for name, values in arrays.items()]


def aimed(arrays: Mapping[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (n, C), the attacker's labels (n,) and the true ones (n,) of the probe `name`, no row of which has both.

    Raises:
        ValueError: As the checks above, and if a row's labels agree: predicting its class needs no attack, so it would
            count ordinary skill as attack success.
    """
    logits, wanted = logits_and_targets(arrays[f"{name}_logits"], arrays[f"{name}_targets"], prefix=f"{name}_")
    true = classes(f"{name}_true", arrays[f"{name}_true"], rows=logits.shape[0], count=logits.shape[1])
    already = int(np.sum(true == wanted))
    if already:
        raise ValueError(f"{name}_true must differ from {name}_targets, but is equal in {already} rows")
    return logits, wanted, true
