"""Images that may not be what they seem: of two grey levels, or of a look that gives their class away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from unlearn_core.datasets.parts import SPLITS, Named, Part
from unlearn_core.datasets.reading import EXAMPLES, Note, Words
from unlearn_core.datasets.shortcuts import SAMPLE, find_shortcuts

PART = 4096  # images at a time
SIDE = 16  # pixels looked at along each axis
ALIKE = 3  # images from which it says something that all are of one class


def image_suspicions(parts: Mapping[str, Part], distinct: np.ndarray, classes: int, named: Named) -> Iterator[Note]:
    """Two-level images of every set, and looks that tell classes apart in the training rows.

    Args:
        parts: The sets by name.
        distinct: Positions of the training rows that repeat no other.
        classes: Number of classes.
        named: What to call rows and classes.

    Yields:
        A note for each suspicion.
    """
    for split, part in parts.items():
        yield from _two_levels(split, part, named)
    rows = distinct[:SAMPLE]
    yield from _telling(parts["train"].x[rows], parts["train"].y[rows], named.classes(classes))


def thinned(x: np.ndarray) -> np.ndarray:
    """At most SIDE rows and columns of pixels of the images (n, h, w, c), evenly spaced."""
    down, across = (-(-length // SIDE) for length in x.shape[1:3])
    return x[:, ::down, ::across]


def looks_of(x: np.ndarray) -> dict[str, np.ndarray]:
    """Numbers (n,) that say how images (n, h, w, c) look as a whole, by name."""
    flat = x.reshape(len(x), -1).astype(np.float32)
    spread = x.max(axis=3).astype(np.float32) - x.min(axis=3)
    return {
        "brightness": flat.mean(axis=1),
        "contrast": flat.std(axis=1),
        "darkest pixel": flat.min(axis=1),
        "brightest pixel": flat.max(axis=1),
        "colour": spread.mean(axis=(1, 2)),
    }


def _telling(x: np.ndarray, y: np.ndarray, names: tuple[str, ...]) -> Iterator[Note]:
    """A note if a look separates all classes, or else one on each class that a look separates from all others."""
    looks = looks_of(thinned(x))
    found = find_shortcuts(np.stack(list(looks.values()), axis=1), y, len(names))
    shown = np.array(list(looks))
    if found.labels.any():
        text = "training images of all classes show their class by a single number"
        yield Note(text=text, count=len(y), examples=tuple(shown[found.labels].tolist()[:EXAMPLES]))
        return
    for label in np.flatnonzero(found.classes.any(axis=0)):
        text = f"training images of class {names[label]} differ from all others by a single number"
        by = tuple(shown[found.classes[:, label]].tolist()[:EXAMPLES])
        yield Note(text=text, count=int((y == label).sum()), examples=by)


def _two_levels(split: str, part: Part, named: Named) -> Iterator[Note]:
    places = two_level_images(part.x)
    if not len(places):
        return
    among = np.unique(part.y[places])
    within = len(among) == 1 and len(places) >= ALIKE and len(np.unique(part.y)) > 1
    label = named.classes(int(part.y.max()) + 1)[int(among[0])]
    where = f", all of class {label}: brightness may give it away" if within else ""
    examples = tuple(named.row(split, part, int(i)) for i in places[:EXAMPLES])
    some = Words("has", "have").of(len(places))
    text = f"of the {len(part.y):,} {SPLITS[split]} images {some} two pixel levels or fewer{where}"
    yield Note(text=text, count=len(places), examples=examples)


def two_level_images(x: np.ndarray) -> np.ndarray:
    """Positions of the images (n, h, w, c) with at most two different values."""
    few = _at_most_two(thinned(x[:, ::4, ::4]))  # some of the pixels settle most images
    candidates = np.flatnonzero(few)
    found = [
        candidates[i : i + PART][_at_most_two(x[candidates[i : i + PART]])] for i in range(0, len(candidates), PART)
    ]
    return np.concatenate(found) if found else candidates


def _at_most_two(x: np.ndarray) -> np.ndarray:
    """(n,) mask."""
    flat = x.reshape(len(x), -1)
    low, high = flat.min(axis=1, keepdims=True), flat.max(axis=1, keepdims=True)
    mask: np.ndarray = ((flat == low) | (flat == high)).all(axis=1)
    return mask
