"""Images at another size, with the same pixels on every machine."""

from __future__ import annotations

import numpy as np

ONE = 2**16  # weights are whole numbers of this fraction
PART = 4096  # images at a time


def resized(images: np.ndarray, side: int) -> np.ndarray:
    """(n, h, w, c) uint8 to (n, side, side, c) uint8: bilinear, and averaging where it shrinks (antialiasing).

    All sums are of whole numbers below 2^53, hence exact in any order, and rounded once at the end (halves up), as if
    the smaller images had been stored.
    """
    down, across = (weights(length, side) for length in images.shape[1:3])
    parts = [
        np.einsum("ih,jw,nhwc->nijc", down, across, images[i : i + PART].astype(float), optimize=True)
        for i in range(0, len(images), PART)
    ]
    return np.concatenate([np.floor(part / ONE**2 + 0.5).astype(np.uint8) for part in parts])


def weights(before: int, after: int) -> np.ndarray:
    """(after, before) whole numbers, each row with sum ONE.

    Triangles around the centre of each pixel to be made, one pixel wide of whichever of the two grids is coarser.
    """
    scale = before / after
    centres = (np.arange(after) + 0.5) * scale
    distance = np.abs(np.arange(before) + 0.5 - centres[:, np.newaxis]) / max(scale, 1.0)
    triangle = np.clip(1 - distance, 0, None)
    whole = np.floor(triangle / triangle.sum(1, keepdims=True) * ONE)
    whole[np.arange(after), whole.argmax(1)] += ONE - whole.sum(1)
    return whole
