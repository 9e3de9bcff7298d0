"""Removal, efficacy and score: identities, orientation, and what is undefined."""

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from unlearn_core.metrics import attack_succeeded, efficacy, removal, score, utility_gap

VALUE = st.floats(-10, 10)
GRID = [i / 10 for i in range(-20, 41)]


def took(**changed):
    given_values = {"corrupted": 1.0, "corrupted_error": 0.1, "oracle": 0.0, "oracle_error": 0.1, "least_gap": 0.2}
    return attack_succeeded(**given_values | changed)


@given(VALUE, VALUE, VALUE, st.floats(0.1, 10), VALUE)
def test_removal_ignores_unit_and_origin(value, corrupted, oracle, unit, origin):
    assume(corrupted - oracle > 0.1)
    plain = removal(value=value, corrupted=corrupted, oracle=oracle, took=True)
    moved = (unit * x + origin for x in (value, corrupted, oracle))
    assert removal(**dict(zip(("value", "corrupted", "oracle"), moved, strict=True)), took=True) == pytest.approx(
        plain, rel=1e-6, abs=1e-6
    )


def test_removal_on_a_grid_equals_the_share():
    for value, corrupted, oracle in itertools.product(GRID[::5], repeat=3):
        if corrupted > oracle:
            share = removal(value=value, corrupted=corrupted, oracle=oracle, took=True)
            assert corrupted - share * (corrupted - oracle) == pytest.approx(value)  # solved for the value


def test_removal_at_its_marks():
    def at(value):
        return removal(value=value, corrupted=0.77, oracle=0.10, took=True)

    assert at(0.77) == 0
    assert at(0.10) == 1
    assert at(-0.57) == pytest.approx(2)
    assert at(1.44) == pytest.approx(-1)


def test_undefined_removal_stays_undefined():
    assert removal(value=0.5, corrupted=0.0, oracle=1.0, took=False) is None
    assert removal(value=float("nan"), corrupted=1.0, oracle=0.0, took=True) is None
    assert efficacy(None) is None
    assert score(efficacy=None, utility_gap=0.5, tolerance=0.02) is None


@pytest.mark.parametrize(("corrupted", "oracle"), [(0.0, 0.0), (0.0, 1.0)])
def test_removal_refuses_models_in_the_wrong_order(corrupted, oracle):
    with pytest.raises(ValueError, match="corrupted must exceed oracle"):
        removal(value=0.5, corrupted=corrupted, oracle=oracle, took=True)


@pytest.mark.parametrize("bad", [{"value": float("inf")}, {"corrupted": float("nan")}, {"oracle": float("inf")}])
def test_removal_names_what_is_not_finite(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} must be a finite number"):
        removal(**{"value": 0.5, "corrupted": 1.0, "oracle": 0.0, "took": True} | bad)


def test_efficacy_is_removal_up_to_the_oracle_and_falls_beyond():
    for share in GRID:
        assert efficacy(share) == pytest.approx(share if share <= 1 else 2 - share)
        assert efficacy(share) == pytest.approx(efficacy(2 - share))  # overshooting is as bad as a remainder
        assert efficacy(share) <= efficacy(1) == 1


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, True),
        ({"corrupted": 0.0, "oracle": 1.0}, False),  # the effect runs the wrong way
        ({"corrupted": 0.19, "corrupted_error": 0.01, "oracle_error": 0.01}, False),  # clear but too small
        ({"corrupted": 0.2, "corrupted_error": 0.01, "oracle_error": 0.01}, True),
        ({"corrupted_error": 0.3, "oracle_error": 0.4}, False),  # 3 hypot(0.3, 0.4) = 1.5
        ({"corrupted": 1.5, "corrupted_error": 0.3, "oracle_error": 0.4}, True),
        ({"corrupted_error": 0.0, "oracle_error": 0.0}, True),
    ],
)
def test_attack_took_needs_a_clear_and_large_gap(changed, expected):
    assert took(**changed) is expected


@given(VALUE, VALUE, st.floats(0, 2), st.floats(0, 2), st.floats(0.01, 2), st.floats(0, 2))
def test_attack_took_is_monotone(corrupted, oracle, corrupted_error, oracle_error, least_gap, more):
    values = {"corrupted": corrupted, "corrupted_error": corrupted_error, "oracle": oracle}
    values |= {"oracle_error": oracle_error, "least_gap": least_gap}
    for worse in ("oracle", "corrupted_error", "oracle_error", "least_gap"):
        assert attack_succeeded(**values) >= attack_succeeded(**values | {worse: values[worse] + more})


@given(VALUE, VALUE, st.floats(0, 2), st.floats(0, 2), st.floats(0.01, 2))
def test_removal_is_defined_wherever_the_attack_took(corrupted, oracle, corrupted_error, oracle_error, least_gap):
    values = {"corrupted": corrupted, "oracle": oracle}
    if attack_succeeded(**values, corrupted_error=corrupted_error, oracle_error=oracle_error, least_gap=least_gap):
        assert removal(**values, value=oracle, took=True) == 1


@pytest.mark.parametrize(
    ("name", "bad"),
    [("corrupted", float("nan")), ("oracle_error", -0.1), ("corrupted_error", float("nan")), ("least_gap", 0.0)],
)
def test_attack_took_names_what_is_wrong(name, bad):
    with pytest.raises(ValueError, match=f"{name} must be"):
        took(**{name: bad})


def test_utility_gap_is_positive_when_utility_is_lost():
    assert utility_gap(oracle_accuracy=0.95, accuracy=0.90) == pytest.approx(0.05)
    assert utility_gap(oracle_accuracy=0.90, accuracy=0.95) == pytest.approx(-0.05)
    with pytest.raises(ValueError, match="accuracy must lie in"):
        utility_gap(oracle_accuracy=0.9, accuracy=90.0)


@pytest.mark.parametrize(
    ("gap", "expected"), [(-0.5, 0.8), (0.0, 0.8), (0.02, 0.8), (0.03, 0.7), (0.1, 0.0), (0.12, -0.2), (1.0, -9.0)]
)
def test_score_charges_only_the_gap_beyond_the_tolerance(gap, expected):
    assert score(efficacy=0.8, utility_gap=gap, tolerance=0.02) == pytest.approx(expected)


def test_a_wreck_never_beats_doing_nothing():
    nothing = score(efficacy=0.0, utility_gap=0.0, tolerance=0.02)
    for gap in (0.13, 0.3, 0.85):
        assert score(efficacy=1.0, utility_gap=gap, tolerance=0.02) < nothing


@pytest.mark.parametrize(("gap", "tolerance"), [(float("nan"), 0.02), (0.0, -0.01), (0.0, float("nan"))])
def test_score_refuses_invalid_numbers(gap, tolerance):
    with pytest.raises(ValueError, match="must be"):
        score(efficacy=0.5, utility_gap=gap, tolerance=tolerance)
