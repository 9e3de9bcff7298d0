"""Rank correlation of quantities measured on rungs that are not independent. Pure functions of arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.intervals import LEVEL

DRAWS = 500
AT_ONCE, KEPT = 250_000, 2_000_000
"""Numbers in an array of resamples (2 MB, which stay close to the processor), and in those that are kept."""
LEAST_METHODS = 5
"""Methods from which resampling them says anything: four give 35 distinct resamples, most of them of two or three."""
USABLE = 0.9
"""Share of resamples that must have a defined correlation; in the others a quantity is constant."""


class RankCorrelation(NamedTuple):
    """Spearman's rho with its 95 % interval; NaN where undefined, and then `reason` says why."""

    rho: float
    low: float
    high: float
    n: int
    reason: str


class Resampled(NamedTuple):
    """A quantity in some resamples.

    Weights, centred ranks and their product, shape (draws, n), and sums of weighted squared ranks, shape (draws,).
    """

    weights: NDArray[np.float64]
    ranks: NDArray[np.float64]
    weighted: NDArray[np.float64]
    spread: NDArray[np.float64]


class Groups(NamedTuple):
    """Rungs of the same method and seed, which count equally often in every resample."""

    group: NDArray[np.intp]  # (n,) of each rung
    drawn: NDArray[np.float64]  # (resamples, groups): how often each counts

    def weights(self, rows: slice) -> NDArray[np.float64]:
        """How often each rung counts in the resamples `rows`, shape (rows, n)."""
        return self.drawn[rows][:, self.group]


def once(rungs: int) -> Groups:
    """Every rung as it is."""
    return Groups(np.zeros(rungs, dtype=int), np.ones((1, 1)))


Block = tuple[slice, Resampled]


class Against:
    """A quantity that others are correlated with over the same rungs: what depends on it alone is computed once.

    y: shape (n,). methods, seeds: shape (n,), labels.
    """

    def __init__(self, y: ArrayLike, *, methods: ArrayLike, seeds: ArrayLike) -> None:
        self.y, self.methods, self.seeds = np.asarray(y, dtype=float), np.asarray(methods), np.asarray(seeds)
        self._kept: tuple[bytes, Groups, list[Block]] | None = None

    def correlation(self, x: ArrayLike) -> RankCorrelation:
        """Spearman's rank correlation of rungs, and its interval by resampling methods and seeds.

        Rungs of one run follow each other, runs of one method share its behaviour, and runs of one seed share poisons,
        corrupted model and oracle, so rungs are no independent units: Fisher's z with their number, or resampling
        single runs, gives intervals far too narrow (the test of coverage shows it). Methods and seeds are crossed,
        hence both are resampled, independently, and a rung counts as often as its method times its seed was drawn (the
        pigeonhole bootstrap, which errs on the wide side). With one seed, methods alone are resampled: the interval
        then speaks of that scenario only.

        Args:
            x: Shape (n,); pairs with a value that is not finite are left out. Ties share their mean rank.

        Returns:
            Percentile interval of DRAWS resamples with a fixed seed; without one below LEAST_METHODS methods.

        Source: Owen, Annals of Applied Statistics 1 (2007), arXiv:0712.1111.
        """
        x = np.asarray(x, dtype=float)
        both = np.isfinite(x) & np.isfinite(self.y)
        x, y = _without_rounding(x[both]), _without_rounding(self.y[both])
        if x.size < 2:
            return RankCorrelation(math.nan, math.nan, math.nan, x.size, "not measured")
        if np.ptp(x) == 0 or np.ptp(y) == 0:
            return RankCorrelation(math.nan, math.nan, math.nan, x.size, "constant")
        rho = float(spearman(x, y, once(x.size))[0])
        if len(np.unique(self.methods[both])) < LEAST_METHODS:
            return RankCorrelation(rho, math.nan, math.nan, x.size, f"no interval: fewer than {LEAST_METHODS} methods")
        groups, resampled = self._resampled(y, both)
        parts = [_correlated(_ranked(x, groups, rows, some.weights), some) for rows, some in resampled]
        drawn = np.concatenate(parts)
        drawn = drawn[np.isfinite(drawn)]
        if drawn.size < USABLE * DRAWS:
            return RankCorrelation(rho, math.nan, math.nan, x.size, "no interval: constant for most methods")
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return RankCorrelation(rho, float(low), float(high), x.size, "")

    def _resampled(self, y: NDArray[np.float64], both: NDArray[np.bool_]) -> tuple[Groups, Iterable[Block]]:
        """y in every resample of the rungs in `both`, as many resamples at a time as fit into AT_ONCE numbers."""
        if self._kept is None or self._kept[0] != both.tobytes():
            groups = _groups(self.methods[both], self.seeds[both])
            blocks = ((rows, _ranked(y, groups, rows, groups.weights(rows))) for rows in _blocks(y.size))
            if DRAWS * y.size > KEPT:
                return groups, blocks
            self._kept = (both.tobytes(), groups, list(blocks))
        return self._kept[1:]


def rank_correlation(x: ArrayLike, y: ArrayLike, *, methods: ArrayLike, seeds: ArrayLike) -> RankCorrelation:
    """The correlation of x and y, see `Against.correlation`."""
    return Against(y, methods=methods, seeds=seeds).correlation(x)


def _without_rounding(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The values in units of 1e-9 of the largest: equal ones that were computed differently are ties again."""
    largest = float(np.abs(values).max(initial=0.0))
    return np.round(values / largest * 1e9) if largest > 0 else values


def _groups(methods: NDArray[Any], seeds: NDArray[Any]) -> Groups:
    method, seed = (np.unique(labels, return_inverse=True)[1] for labels in (methods, seeds))
    random = np.random.default_rng(0)
    drawn = [random.multinomial(k, np.full(k, 1 / k), DRAWS).astype(float) for k in (method.max() + 1, seed.max() + 1)]
    pairs, group = np.unique(np.stack([method, seed]), axis=1, return_inverse=True)
    return Groups(group.ravel(), drawn[0][:, pairs[0]] * drawn[1][:, pairs[1]])


def _blocks(rungs: int) -> Iterator[slice]:
    """The resamples, as many at a time as fit into AT_ONCE numbers."""
    size = max(1, AT_ONCE // rungs)
    return (slice(start, start + size) for start in range(0, DRAWS, size))


def _ranked(values: NDArray[np.float64], groups: Groups, rows: slice, weights: NDArray[np.float64]) -> Resampled:
    """Mean ranks within each of the resamples `rows`, minus their weighted mean; `weights` are theirs.

    A rank is a sum over groups of how often the group was drawn times how many of its rungs have a smaller value (and
    half of those with the same one): a matrix product, exact because all of its numbers are multiples of a half.
    """
    position = np.unique(values, return_inverse=True)[1]
    counts = np.zeros((groups.drawn.shape[1], position.max() + 1))
    np.add.at(counts, (groups.group, position), 1.0)
    below = np.cumsum(counts, axis=1) - counts / 2 - counts.sum(axis=1, keepdims=True) / 2
    ranks = groups.drawn[rows] @ below[:, position]
    weighted = weights * ranks
    return Resampled(weights, ranks, weighted, _sums(weighted, ranks))


def _correlated(a: Resampled, b: Resampled) -> NDArray[np.float64]:
    """Spearman's rho in each resample; NaN where a quantity is constant in it."""
    spread = np.sqrt(a.spread * b.spread)
    defined = spread > 1e-9 * np.maximum(1.0, a.weights.sum(axis=1)) ** 2
    return np.where(defined, _sums(b.weighted, a.ranks) / np.where(defined, spread, 1.0), math.nan)


def _sums(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(np.einsum("dn,dn->d", a, b))


def spearman(x: NDArray[np.float64], y: NDArray[np.float64], groups: Groups) -> NDArray[np.float64]:
    """Spearman's rho in each resample of the pairs, ties sharing their mean rank.

    Args:
        x: Shape (n,), finite.
        y: Shape (n,), finite.
        groups: Which pairs are resampled together.

    Returns:
        Shape (resamples,); NaN where x or y is constant among the pairs that were drawn.
    """
    rows = slice(None)
    return _correlated(*(_ranked(values, groups, rows, groups.weights(rows)) for values in (x, y)))
