"""Composite scores: identities, and every pattern of right and wrong answers on small sets."""

import itertools

import numpy as np
import pytest

from unlearn_core.metrics import compute_all

SETS = ("forget", "retain", "test")


def arrays(seed=0, rows=30, classes=4):
    rng = np.random.default_rng(seed)
    made = {}
    for name in SETS:
        made[f"{name}_targets"] = rng.integers(0, classes, rows)
        for model in ("", "oracle_"):
            made[f"{model}{name}_logits"] = rng.standard_normal((rows, classes)).astype(np.float32)
            made[f"{model}{name}_logits"] += 2 * np.eye(classes, dtype=np.float32)[made[f"{name}_targets"]]
    return made


def as_oracle(given):
    return given | {f"{name}_logits": given[f"oracle_{name}_logits"] for name in SETS}


@pytest.mark.parametrize("seed", range(5))
def test_the_oracle_scores_perfectly(seed):
    values = compute_all(as_oracle(arrays(seed)))
    assert (values["tow"], values["tow_mia"], values["average_gap"]) == (1, 1, 0)


@pytest.mark.parametrize("seed", range(5))
def test_scores_follow_from_the_published_formulas(seed):
    given = arrays(seed)
    own, oracle = compute_all(given), compute_all(as_oracle(given))
    gaps = {name: abs(own[f"{name}_accuracy"] - oracle[f"{name}_accuracy"]) for name in SETS}
    mia = abs(own["mia_confidence"] - oracle["mia_confidence"])
    assert own["tow"] == pytest.approx(np.prod([1 - gap for gap in gaps.values()]))
    assert own["tow_mia"] == pytest.approx((1 - mia) * (1 - gaps["retain"]) * (1 - gaps["test"]))
    assert own["average_gap"] == pytest.approx(np.mean([*gaps.values(), mia]))
    assert min(gaps.values()) < max(gaps.values())


def test_tow_on_every_pattern_of_two_rows_per_set():
    """Right and wrong rows of model and oracle, the same for both signs of the gap."""
    patterns = [0, 1, 2]  # right answers out of two
    for own, oracle in itertools.product(itertools.product(patterns, repeat=3), [(2, 2, 2), (0, 1, 2), (1, 1, 0)]):
        given = {}
        for name, mine, theirs in zip(SETS, own, oracle, strict=True):
            given[f"{name}_targets"] = np.zeros(2, int)
            for model, right in (("", mine), ("oracle_", theirs)):
                given[f"{model}{name}_logits"] = np.eye(2)[[0] * right + [1] * (2 - right)]
        expected = np.prod([1 - abs(a - b) / 2 for a, b in zip(own, oracle, strict=True)])
        assert compute_all(given)["tow"] == pytest.approx(expected)


def test_a_gap_counts_the_same_both_ways():
    given = arrays(1)
    ways = (("", "oracle_"), ("oracle_", ""))
    exchanged = {f"{a}{name}_logits": given[f"{b}{name}_logits"] for name in SETS for a, b in ways}
    one, other = compute_all(given), compute_all(given | exchanged)
    for column in ("tow", "tow_mia", "average_gap"):
        assert one[column] == pytest.approx(other[column])


@pytest.mark.parametrize("name", [f"oracle_{name}_logits" for name in SETS])
def test_invalid_arrays_are_named(name):
    with pytest.raises(ValueError, match=f"{name} must"):
        compute_all(arrays() | {name: np.full((30, 4), np.nan)})
