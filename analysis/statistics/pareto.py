"""Pareto fronts and the area under them. Pure functions of arrays."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def nondominated(costs: ArrayLike) -> NDArray[np.bool_]:
    """Which points no other point beats; equal points do not beat each other.

    Args:
        costs: Shape (n, d), each column to be minimised (negate what should be large); rows with NaN never count.

    Returns:
        Shape (n,); True on the front.

    Raises:
        ValueError: If the array is not two-dimensional.
    """
    costs = np.asarray(costs, dtype=float)
    if costs.ndim != 2:
        raise ValueError(f"costs must have shape (n, d), but got {costs.shape}")
    on_front = np.zeros(len(costs), dtype=bool)
    usable = np.flatnonzero(np.isfinite(costs).all(axis=1))
    order = usable[np.lexsort(costs[usable].T[::-1])]
    keep = _sweep(costs[order]) if costs.shape[1] == 2 else _filter(costs[order])
    on_front[order[keep]] = True
    return on_front


def _sweep(ordered: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Two columns, sorted: a point stays if it improves on all before it, or equals its predecessor that stayed."""
    first, second = ordered[:, 0], ordered[:, 1]
    best_before = np.minimum.accumulate(np.concatenate([[np.inf], second[:-1]]))
    improves = second < best_before
    opener = np.maximum.accumulate(np.where(improves, np.arange(len(ordered)), -1))
    return improves | ((second == second[opener]) & (first == first[opener]))


def _filter(ordered: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Any number of columns, sorted: only points already kept can dominate a later one."""
    keep = np.zeros(len(ordered), dtype=bool)
    for i, point in enumerate(ordered):
        rivals = ordered[:i][keep[:i]]
        keep[i] = not np.any(np.all(rivals <= point, axis=1) & np.any(rivals < point, axis=1))
    return keep


def hypervolume(*, cost: ArrayLike, gain: ArrayLike, worst_cost: float, worst_gain: float = 0.0) -> float:
    """Area that the points dominate, between them and the corner (`worst_cost`, `worst_gain`).

    Args:
        cost: Shape (n,), to be small; points beyond `worst_cost` add nothing.
        gain: Shape (n,), to be large; points below `worst_gain` add nothing; NaN is left out.
        worst_cost: Cost of the corner.
        worst_gain: Gain of the corner.

    Returns:
        Area in units of cost times gain, at least 0.
    """
    cost, gain = np.asarray(cost, dtype=float), np.asarray(gain, dtype=float)
    usable = (cost < worst_cost) & (gain > worst_gain)  # False for NaN
    order = np.argsort(cost[usable], kind="stable")
    x, height = cost[usable][order], np.maximum.accumulate(gain[usable][order]) - worst_gain
    return float(np.sum(np.diff(np.append(x, worst_cost)) * height))


def staircase(*, cost: ArrayLike, gain: ArrayLike, until: float) -> NDArray[np.float64]:
    """Corners of the front's outline from its first point to cost `until`, shape (k, 2)."""
    cost, gain = np.asarray(cost, dtype=float), np.asarray(gain, dtype=float)
    front = np.flatnonzero(nondominated(np.column_stack([cost, -gain])))
    front = front[np.argsort(cost[front], kind="stable")]
    if not front.size:
        return np.empty((0, 2))
    x = np.append(np.repeat(cost[front], 2)[1:], max(until, cost[front][-1]))
    return np.column_stack([x, np.repeat(gain[front], 2)])
