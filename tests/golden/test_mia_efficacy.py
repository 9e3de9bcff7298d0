"""Threshold attacks against an exhaustive search, loops over rows, and the theory of normal scores."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import norm

from unlearn_core.metrics import compute_all
from unlearn_core.metrics.mia_efficacy import efficacy_of
from unlearn_core.metrics.roc import advantage, best_threshold

SCORES = st.lists(st.integers(-9, 9), min_size=1, max_size=20).map(lambda values: np.array(values, float))
COLUMNS = ("mia_correctness", "mia_confidence", "mia_entropy", "mia_modified_entropy")


def arrays(margins, rows=40, classes=3, seed=0):
    """Noisy logits with this margin of the label, per set."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, margin in margins.items():
        targets = rng.integers(0, classes, rows)
        logits = rng.standard_normal((rows, classes)) + margin * np.eye(classes)[targets]
        made |= {f"{name}_logits": logits.astype(np.float32), f"{name}_targets": targets}
    return made


@given(SCORES, SCORES)
def test_no_threshold_tells_members_better(member, nonmember):
    chosen = best_threshold(member=member, nonmember=nonmember)
    gains = {t: np.mean(member >= t) - np.mean(nonmember >= t) for t in [*np.arange(-10, 10.5, 0.5), math.inf]}
    gain = np.mean(member >= chosen) - np.mean(nonmember >= chosen)
    assert gain == pytest.approx(max(gains.values()), abs=1e-12)
    assert gain == pytest.approx(advantage(member=member, nonmember=nonmember), abs=1e-12)
    stricter = [t for t in gains if t > chosen]
    assert all(gains[t] < gain for t in stricter) or math.isinf(chosen)


@pytest.mark.parametrize("bad", [np.array([]), np.array([np.nan, 1.0]), np.zeros((2, 2))])
@pytest.mark.parametrize("side", ["member", "nonmember"])
def test_invalid_scores_are_named(bad, side):
    with pytest.raises(ValueError, match=f"^{side} must"):
        best_threshold(**{"member": np.zeros(3), "nonmember": np.zeros(3)} | {side: bad})


def test_every_small_case_by_hand():
    values = [0.0, 1.0, 2.0]
    for retain, test in itertools.product(itertools.product(values, repeat=2), repeat=2):
        cuts = [t for t in values if np.mean(np.array(retain) >= t) > np.mean(np.array(test) >= t)]
        gains = {t: np.mean(np.array(retain) >= t) - np.mean(np.array(test) >= t) for t in cuts}
        best = max((t for t in cuts if gains[t] == max(gains.values())), default=math.inf)
        sets = {"retain": np.array(retain), "test": np.array(test), "forget": np.array(values)}
        assert efficacy_of(sets) == np.mean([score < best for score in values])


def loop_scores(logits, targets):
    """Each row's confidence, negative entropy and negative modified entropy from its probabilities, term by term."""
    found = []
    for p, y in zip(softmax(logits.astype(np.float64), axis=1), targets, strict=True):
        modified = (1 - p[y]) * math.log(p[y]) + sum(p[c] * math.log(1 - p[c]) for c in range(len(p)) if c != y)
        found.append((p[y], sum(q * math.log(q) for q in p), modified))
    return np.array(found).T


@pytest.mark.parametrize("seed", range(5))
def test_efficacies_equal_a_search_over_all_thresholds(seed):
    given_arrays = arrays({"retain": 2.0, "test": 1.0, "forget": 1.5}, seed=seed)
    values = compute_all(given_arrays)
    sets = ("retain", "test", "forget")
    scores = {name: loop_scores(given_arrays[f"{name}_logits"], given_arrays[f"{name}_targets"]) for name in sets}
    for row, column in enumerate(COLUMNS[1:]):
        retain, test, forget = (scores[name][row] for name in sets)
        gains = [(int(np.sum(retain >= t)) - int(np.sum(test >= t)), t) for t in retain]
        gain, threshold = max(gains)
        assert gain > 0
        assert values[column] == pytest.approx(np.mean(forget < threshold))
    wrong = given_arrays["forget_logits"].argmax(axis=1) != given_arrays["forget_targets"]
    assert values["mia_correctness"] == pytest.approx(np.mean(wrong))
    assert values["mia_correctness"] == pytest.approx(1 - values["forget_accuracy"])


def test_poisons_that_look_like_training_rows_are_members_and_the_others_are_not():
    remembered = compute_all(arrays({"retain": 40.0, "test": 0.0, "forget": 50.0}))
    forgotten = compute_all(arrays({"retain": 40.0, "test": 0.0, "forget": -50.0}, classes=2))
    assert remembered["mia_confidence"] == remembered["mia_modified_entropy"] == remembered["mia_correctness"] == 0
    assert forgotten["mia_confidence"] == forgotten["mia_modified_entropy"] == forgotten["mia_correctness"] == 1
    assert forgotten["mia_entropy"] == 0  # certain of another class: the entropy cannot tell


def test_forget_rows_drawn_as_test_rows_are_called_members_as_often_as_those():
    """Normal scores a margin d apart: the best threshold lies in the middle, where P(test row below) = Phi(d / 2)."""
    rng, d = np.random.default_rng(0), 2.0
    sets = {"retain": rng.normal(d, 1, 20000), "test": rng.normal(0, 1, 20000)}
    as_test, as_retain = rng.normal(0, 1, 20000), rng.normal(d, 1, 20000)
    assert efficacy_of(sets | {"forget": as_test}) == pytest.approx(norm.cdf(d / 2), abs=0.03)
    assert efficacy_of(sets | {"forget": as_retain}) == pytest.approx(norm.cdf(-d / 2), abs=0.03)


def test_no_one_is_a_member_where_nothing_tells_them():
    same = np.random.default_rng(0).standard_normal(30)
    assert efficacy_of({"retain": same, "test": same, "forget": same + 5}) == 1


def test_sets_are_of_equal_size_and_not_the_first_rows():
    """A retain set sorted so that its first rows are atypical: cutting it off there would fit to those alone."""
    given_arrays = arrays({"retain": 6.0, "test": 0.0, "forget": 6.0}, rows=400)
    given_arrays |= {f"test_{part}": given_arrays[f"test_{part}"][:100] for part in ("logits", "targets")}
    given_arrays["retain_logits"][:100] = 0.0
    values = compute_all(given_arrays)
    assert values["mia_confidence"] < 0.1
    again = compute_all(given_arrays)
    assert [values[c] for c in COLUMNS] == [again[c] for c in COLUMNS]


@pytest.mark.parametrize("name", ["retain", "test", "forget"])
def test_invalid_arrays_are_named(name):
    bad = {f"{name}_logits": np.full((40, 3), np.nan, np.float32)}
    with pytest.raises(ValueError, match=f"{name}_logits must be finite"):
        compute_all(arrays({"retain": 1.0, "test": 1.0, "forget": 1.0}) | bad)
