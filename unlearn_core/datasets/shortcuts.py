"""Single numbers that tell the classes apart: what a label leaves behind when it leaks into the inputs.

Sorted by a number that knows nothing of the classes, rows of a class come as mixed as they would by chance; sorted by
one that gives the label away, they come in blocks. So the neighbours with different labels are counted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

SAMPLE = 4000  # training rows that are looked at; they come in an order in which every prefix has the class shares
LEAST = 10.0  # changes that chance would make: with fewer, blocks may be chance
SPARE = 0.04  # of these, so many may be left: about 1 % of the rows on the wrong side of a threshold
SEED = 0


class Shortcuts(NamedTuple):
    """labels: (d,) mask of the numbers that give all labels.

    classes: (d, classes) mask of those that tell one class from all others.
    """

    labels: np.ndarray
    classes: np.ndarray


def find_shortcuts(x: np.ndarray, y: np.ndarray, classes: int) -> Shortcuts:
    """Which of the columns (n, d) give the labels (n,) away, nearly always and beyond what chance can do.

    A column gives them away if the label is a function of it with few steps (a copy of the label under any names, one
    threshold, an index of rows sorted by class), or if rows of the same value have the same label. So leave out rows
    that repeat another one.
    """
    mixed = np.random.default_rng(SEED).permutation(len(y))  # equal values stay in this order
    x, y = x[mixed], y[mixed]
    order = np.argsort(np.ascontiguousarray(x.T), axis=1, kind="stable")
    values, labels = np.take_along_axis(np.ascontiguousarray(x.T), order, axis=1), y[order]
    changes = labels[:, 1:] != labels[:, :-1]
    shares = np.bincount(y, minlength=classes) / len(y)
    by_chance = len(y) * (1 - float(shares @ shares))
    steps = int(np.count_nonzero(shares)) - 1
    enough = by_chance >= max(LEAST, 3 * steps)
    few = changes.sum(axis=1) <= steps + SPARE * by_chance
    return Shortcuts(
        enough & (few | _decided(values, labels, changes, shares)),
        _one_class(labels, changes, classes, len(y) * 2 * shares * (1 - shares)),
    )


def _decided(values: np.ndarray, labels: np.ndarray, changes: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """(d,) whether rows of equal value nearly always have equal labels, and most rows of every class are such rows.

    Args:
        values: (d, n) in increasing order.
        labels: (d, n) in the order of the values.
        changes: (d, n - 1) where neighbours have different labels.
        shares: (classes,) of the rows.
    """
    equal = values[:, 1:] == values[:, :-1]
    expected = equal.sum(axis=1) * (1 - float(shares @ shares))
    among = _counted(labels[:, 1:], equal, len(shares))
    mask: np.ndarray = (expected >= 2 * LEAST) & ((changes & equal).sum(axis=1) <= SPARE / 2 * expected)
    return mask & (among >= shares * labels.shape[1] / 2).all(axis=1)


def _counted(labels: np.ndarray, where: np.ndarray, classes: int) -> np.ndarray:
    """(d, classes) how often each class is among the labels (d, n) where the mask is true."""
    places = np.arange(len(labels))[:, None] * classes + labels
    return np.bincount(places[where], minlength=len(labels) * classes).reshape(-1, classes)


def _one_class(labels: np.ndarray, changes: np.ndarray, classes: int, by_chance: np.ndarray) -> np.ndarray:
    """(d, classes) whether a column separates this class from all others, by a threshold or an interval.

    Args:
        labels: (d, n) in the order of the values.
        changes: (d, n - 1) where neighbours have different labels.
        classes: Number of classes.
        by_chance: (classes,) changes from or to a class that chance would make.
    """
    found = _counted(labels[:, :-1], changes, classes) + _counted(labels[:, 1:], changes, classes)
    steps = np.where(by_chance >= 2 * LEAST, 2, 1)
    mask: np.ndarray = (found <= steps + SPARE * by_chance) & (by_chance >= LEAST)
    return mask
