"""Training and held-out rows in different units: pixels of 0 .. 1 beside 0 .. 255, grams beside kilograms."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from unlearn_core.datasets.image_signs import SAMPLE, thinned
from unlearn_core.datasets.parts import Named
from unlearn_core.datasets.reading import Note, Words, note

LEAST = 20  # rows on either side: fewer may lie anywhere by chance
DARK, LIGHT = 2, 20  # pixels that are all at most the first, beside some above the second, are of another scale
FAR, WIDE = 0.5, 2.5  # mean pixels that differ by so many deviations; ratio of deviations
OUTER = (0.01, 0.99)  # quantiles: half of the rows of another set lie outside only if it has another unit
RATIO = 10.0  # of the spread between the quartiles


class Scale(NamedTuple):
    """errors: why no result would mean anything. warnings: what may be intended."""

    errors: tuple[str, ...] = ()
    warnings: tuple[Note, ...] = ()


def image_scale(train: np.ndarray, held_out: np.ndarray) -> Scale:
    """Compares pixels (n, h, w, c) uint8."""
    tops = int(train.max()), int(held_out.max())
    if min(tops) <= DARK and max(tops) > LIGHT:
        return Scale((f"training pixels reach {tops[0]}, held-out ones {tops[1]}: they are not of the same scale",))
    if min(len(train), len(held_out)) < LEAST:
        return Scale()
    one, two = (thinned(x[:SAMPLE]).reshape(min(len(x), SAMPLE), -1).astype(np.float32) for x in (train, held_out))
    spread = float(one.std())
    noise = 4 * float(one.mean(axis=1).std()) / len(two) ** 0.5  # of the mean of so many images
    apart = abs(float(one.mean()) - float(two.mean()))
    ratio = float(two.std()) / spread if spread else 1.0
    if apart <= FAR * spread + noise and 1 / WIDE <= ratio <= WIDE:
        return Scale()
    means = f"mean {two.mean():.0f} against {one.mean():.0f}, deviation {two.std():.0f} against {one.std():.0f}"
    text = f"held-out images have another scale of pixels than the training images: {means}"
    return Scale((), (Note(text=text, count=len(held_out)),))


def table_scale(train: np.ndarray, held_out: np.ndarray, named: Named) -> Scale:
    """Compares columns (n, columns) by their quantiles."""
    if min(len(train), len(held_out)) < LEAST:
        return Scale()
    low, high = np.quantile(train, OUTER, axis=0)
    first, middle, third = np.quantile(held_out, (0.25, 0.5, 0.75), axis=0)
    before, after = np.subtract(*np.quantile(train, (0.75, 0.25), axis=0)), third - first
    spread = (before > 0) & ((after < before / RATIO) | (after > before * RATIO))
    off = np.flatnonzero((middle < low) | (middle > high) | spread)
    moving = np.flatnonzero((train != train[0]).any(axis=0))
    columns = named.columns(off)
    if len(moving) > 1 and np.isin(moving, off).all():
        return Scale(
            (f"all columns ({', '.join(columns[:3])}) have other units in the held-out rows than in training",)
        )
    rest = "another scale in the held-out rows than in the training rows"
    return Scale((), (note(Words(f"column has {rest}", f"columns have {rest}"), columns),)) if len(off) else Scale()
