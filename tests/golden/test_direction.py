"""Shift along and across the corrupted-oracle direction against a projection of the vectors themselves."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unlearn_core.metrics import compute_all


def arrays(theta, corrupted, oracle):
    """The distances that an evaluator hands over, of explicit parameter vectors."""
    pairs = {
        "shift_from_corrupted": theta - corrupted,
        "shift_from_oracle": theta - oracle,
        "oracle_from_corrupted": oracle - corrupted,
    }
    return {name: np.array([np.abs(d).sum(), np.sqrt((d**2).sum())]) for name, d in pairs.items()}


def projected(theta, corrupted, oracle):
    """Coordinates in an orthonormal basis whose first vector points from the corrupted model to the oracle."""
    way, shift = oracle - corrupted, theta - corrupted
    basis, _ = np.linalg.qr(np.column_stack([way, np.eye(len(way))])[:, : len(way)])
    coordinates = basis.T @ shift * np.sign(basis[:, 0] @ way) / np.linalg.norm(way)
    return coordinates[0], np.linalg.norm(coordinates[1:])


@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 5, 40]), st.sampled_from([1e-3, 1.0, 1e3]))
def test_equals_the_projection(seed, size, scale):
    theta, corrupted, oracle = scale * np.random.default_rng(seed).standard_normal((3, size))
    values = compute_all(arrays(theta, corrupted, oracle))
    along, across = projected(theta, corrupted, oracle)
    assert values["shift_along"] == pytest.approx(along, rel=1e-6, abs=1e-9)
    assert values["shift_across"] == pytest.approx(across, rel=1e-6, abs=1e-6)


def test_marks_of_the_line():
    corrupted, oracle = np.random.default_rng(1).standard_normal((2, 1000))
    aside = np.random.default_rng(2).standard_normal(1000)
    aside -= (aside @ (oracle - corrupted)) / ((oracle - corrupted) @ (oracle - corrupted)) * (oracle - corrupted)
    for share in (-0.5, 0.0, 0.3, 1.0, 1.7):
        on_line = compute_all(arrays(corrupted + share * (oracle - corrupted), corrupted, oracle))
        assert on_line["shift_along"] == pytest.approx(share, abs=1e-12)
        assert on_line["shift_across"] == pytest.approx(0, abs=1e-6)
        beside = compute_all(arrays(corrupted + share * (oracle - corrupted) + aside, corrupted, oracle))
        assert beside["shift_along"] == pytest.approx(share)
        assert beside["shift_across"] == pytest.approx(np.linalg.norm(aside) / np.linalg.norm(oracle - corrupted))


def test_the_references_themselves_are_exact():
    corrupted, oracle = np.random.default_rng(3).standard_normal((2, 50))
    at_start, at_end = (compute_all(arrays(theta, corrupted, oracle)) for theta in (corrupted, oracle))
    assert (at_start["shift_along"], at_start["shift_across"]) == (0, 0)
    assert (at_end["shift_along"], at_end["shift_across"]) == (1, 0)


def test_without_a_direction_it_is_undefined():
    values = compute_all(arrays(np.ones(3), np.zeros(3), np.zeros(3)))
    assert math.isnan(values["shift_along"]) and math.isnan(values["shift_across"])
    assert values["l2_from_oracle"] == pytest.approx(math.sqrt(3))


@pytest.mark.parametrize("bad", [[1.0], [1.0, -1.0], [1.0, np.nan]])
def test_invalid_distances_are_named(bad):
    with pytest.raises(ValueError, match="oracle_from_corrupted must"):
        compute_all(arrays(np.ones(3), np.zeros(3), np.eye(3)[0]) | {"oracle_from_corrupted": np.array(bad)})
