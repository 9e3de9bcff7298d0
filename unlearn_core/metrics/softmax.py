"""Probabilities of the classes from logits, in logarithms: exact where a model is so sure that 1 - p rounds to 0."""

from __future__ import annotations

import math

import numpy as np


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """log p of every class in nats, shape and order of `logits` (n, classes); finite for finite float64 logits."""
    rows, best = np.arange(len(logits)), logits.argmax(axis=1)
    below = logits - logits[rows, best][:, None]
    others = np.exp(below)
    others[rows, best] = 0.0  # the best class contributes exp(0) = 1; log1p keeps the digits of log p near 0
    values: np.ndarray = below - np.log1p(others.sum(axis=1, keepdims=True))
    return values


def log_complement(log_p: np.ndarray) -> np.ndarray:
    """log(1 - p) of every class in nats, from the log p (n, classes) of at least two classes.

    Raises:
        ValueError: For a single class, of which 1 - p is 0.
    """
    if log_p.shape[1] < 2:
        raise ValueError(f"logits must have at least two classes, but have {log_p.shape[1]}")
    rows, best = np.arange(len(log_p)), log_p.argmax(axis=1)
    others = log_p.copy()
    others[rows, best] = -np.inf  # 1 - p of the largest p is the sum of the others: no digits cancel
    largest = others.max(axis=1)
    of_best = largest + np.log(np.exp(others - largest[:, None]).sum(axis=1))
    values = np.log1p(-np.exp(np.minimum(others, -math.log(2))))  # every other p is at most 1/2
    values[rows, best] = of_best
    return values


def entropy(log_p: np.ndarray) -> np.ndarray:
    """Entropy of each row in nats, shape (n,), in [0, log classes]."""
    values: np.ndarray = -(np.exp(log_p) * log_p).sum(axis=1)
    return values


def modified_entropy(log_p: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """-(1 - p_y) log p_y - sum over c != y of p_c log(1 - p_c), in nats, for each row.

    It is 0 for certainty of the label y and grows without bound towards certainty of another class, where the entropy
    is 0 as well.

    Args:
        log_p: Log probabilities, shape (n, classes), two classes or more.
        targets: y, shape (n,).

    Returns:
        Shape (n,), each >= 0.

    Source: Song and Mittal, USENIX Security 2021, arXiv:2003.10595, equation 8.
    """
    log_rest = log_complement(log_p)
    terms = np.exp(log_p) * log_rest
    rows = np.arange(len(targets))
    terms[rows, targets] = np.exp(log_rest[rows, targets]) * log_p[rows, targets]
    values: np.ndarray = -terms.sum(axis=1)
    return values


def jensen_shannon(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence of each pair of rows in bits: mean KL divergence of both from their mean.

    Args:
        first: Log probabilities in nats, shape (n, classes).
        second: Log probabilities in nats, shape (n, classes).

    Returns:
        Shape (n,), in [0, 1]; 0 for equal rows, 1 for rows that share no class. Summed over classes: a mean over them
        would depend on their number.
    """
    middle = np.logaddexp(first, second) - math.log(2)
    divergences = (np.exp(first) * (first - middle) + np.exp(second) * (second - middle)).sum(axis=1) / 2
    values: np.ndarray = np.clip(divergences / math.log(2), 0.0, 1.0)  # rounding leaves the range by 1e-16
    return values
