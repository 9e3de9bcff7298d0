"""Fronts against brute force, areas against a hand-computed case and Monte Carlo."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analysis.statistics.pareto import hypervolume, nondominated, staircase


def brute_force(costs: np.ndarray) -> list[bool]:
    def beats(a: np.ndarray, b: np.ndarray) -> bool:
        return bool(np.all(a <= b) and np.any(a < b))

    return [not any(beats(other, point) for other in costs) for point in costs]


def test_every_small_grid_of_points() -> None:
    places = list(itertools.product(range(3), repeat=2))
    for n in range(1, 5):
        for chosen in itertools.combinations_with_replacement(places, n):
            costs = np.array(chosen, dtype=float)[::-1]
            assert nondominated(costs).tolist() == brute_force(costs), chosen


@pytest.mark.parametrize("columns", [1, 2, 3, 4])
def test_random_points_with_ties(columns: int) -> None:
    @given(arrays(float, st.tuples(st.integers(0, 25), st.just(columns)), elements=st.integers(0, 5).map(float)))
    def check(costs: np.ndarray) -> None:
        assert nondominated(costs).tolist() == brute_force(costs)

    check()


def test_missing_values_are_never_on_a_front() -> None:
    assert nondominated([[0.0, np.nan], [1.0, 1.0]]).tolist() == [False, True]


def test_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        nondominated([1.0, 2.0])


def test_area_by_hand() -> None:
    # from 1 to 3 the best gain is 0.5, from 3 to 10 it is 0.8; the point at 5 is dominated, that at 12 too dear
    area = hypervolume(cost=[3, 1, 5, 12, 2], gain=[0.8, 0.5, 0.6, 1.0, -1.0], worst_cost=10)
    assert area == pytest.approx(2 * 0.5 + 7 * 0.8)
    assert hypervolume(cost=[], gain=[], worst_cost=1) == 0
    assert hypervolume(cost=[1], gain=[0.8], worst_cost=3, worst_gain=0.5) == pytest.approx(2 * 0.3)


def test_area_by_monte_carlo() -> None:
    rng = np.random.default_rng(3)
    cost, gain = rng.uniform(0, 1, 12), rng.uniform(0, 1, 12)
    darts = rng.uniform(size=(200_000, 2))
    hit = np.zeros(len(darts), dtype=bool)
    for c, g in zip(cost, gain, strict=True):
        hit |= (darts[:, 0] >= c) & (darts[:, 1] <= g)
    assert hypervolume(cost=cost, gain=gain, worst_cost=1) == pytest.approx(hit.mean(), abs=0.005)


def test_staircase_has_the_area_of_the_front() -> None:
    cost, gain = np.array([1.0, 2.0, 4.0, 3.0]), np.array([0.2, 0.6, 0.9, 0.1])
    corners = staircase(cost=cost, gain=gain, until=5)
    area = np.sum(np.diff(corners[:, 0]) * corners[:-1, 1])
    assert area == pytest.approx(hypervolume(cost=cost, gain=gain, worst_cost=5))
    assert corners[0].tolist() == [1.0, 0.2]
    assert corners[-1].tolist() == [5.0, 0.9]
    assert staircase(cost=[], gain=[], until=1).shape == (0, 2)
