"""Losses and accuracies against scipy, sklearn and closed forms."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, log_loss

from unlearn_core.metrics import compute_all, cross_entropy, share_correct, share_error
from unlearn_core.registry import METRICS

LOGITS = hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.floats(-80, 80, width=32))


def draw(rows, classes, seed=0, scale=3.0):
    rng = np.random.default_rng(seed)
    return (scale * rng.standard_normal((rows, classes))).astype(np.float32), rng.integers(0, classes, rows)


@pytest.mark.parametrize("classes", [1, 2, 3, 10])
@pytest.mark.parametrize("scale", [0.1, 3.0, 300.0])
def test_cross_entropy_equals_scipy(classes, scale):
    logits, targets = draw(200, classes, scale=scale)
    expected = -log_softmax(logits.astype(np.float64), axis=1)[np.arange(200), targets]
    np.testing.assert_allclose(cross_entropy(logits, targets), expected, rtol=1e-9, atol=1e-12)


def test_cross_entropy_closed_forms():
    uniform = cross_entropy(np.zeros((3, 7), np.float32), np.array([0, 3, 6]))
    np.testing.assert_allclose(uniform, math.log(7))
    gaps = np.array([0.0, 1.0, 20.0, 40.0, 700.0])  # two classes: loss = log(1 + exp(-gap)), accurate near 0
    logits = np.stack([gaps, np.zeros_like(gaps)], axis=1)
    np.testing.assert_allclose(cross_entropy(logits, np.zeros(5, int)), np.log1p(np.exp(-gaps)), rtol=1e-14)
    np.testing.assert_allclose(cross_entropy(logits, np.ones(5, int)), gaps + np.log1p(np.exp(-gaps)), rtol=1e-14)


def test_cross_entropy_survives_the_largest_float32():
    top = np.finfo(np.float32).max
    loss = cross_entropy(np.array([[top, -top], [top, -top]], np.float32), np.array([0, 1]))
    assert loss.tolist() == [0.0, 2 * float(top)]


@given(LOGITS, st.data(), st.floats(-50, 50))
def test_cross_entropy_is_positive_and_ignores_a_common_shift(logits, data, shift):
    targets = np.array(
        data.draw(st.lists(st.integers(0, logits.shape[1] - 1), min_size=len(logits), max_size=len(logits)))
    )
    loss = cross_entropy(logits, targets)
    assert loss.min() >= 0
    np.testing.assert_allclose(cross_entropy(logits.astype(np.float64) + shift, targets), loss, rtol=1e-9, atol=1e-9)


def test_probabilities_of_all_classes_add_up_to_one():
    logits, _ = draw(50, 6)
    losses = np.stack([cross_entropy(logits, np.full(50, c)) for c in range(6)])
    np.testing.assert_allclose(np.exp(-losses).sum(axis=0), 1)


def test_share_correct_on_every_small_case():
    for rows in itertools.product([(1.0, 0.0), (0.0, 1.0)], repeat=3):
        for targets in itertools.product([0, 1], repeat=3):
            hits = sum(row[target] for row, target in zip(rows, targets, strict=True))
            assert share_correct(np.array(rows), np.array(targets)) == hits / 3


def test_first_of_equal_logits_is_the_prediction():
    assert share_correct(np.zeros((4, 3)), np.array([0, 0, 1, 2])) == 0.5


@pytest.mark.parametrize("name", ["test", "retain", "forget"])
def test_families_equal_sklearn(name):
    logits, targets = draw(300, 4)
    values = METRICS.get(f"accuracy_{name}")({f"{name}_logits": logits, f"{name}_targets": targets})
    probabilities = np.exp(log_softmax(logits.astype(np.float64), axis=1))
    accuracy = accuracy_score(targets, logits.argmax(axis=1))
    expected = {f"{name}_accuracy": accuracy, f"{name}_loss": log_loss(targets, probabilities, labels=range(4))}
    if name == "forget":
        expected["forget_accuracy_se"] = share_error(successes=round(300 * accuracy), trials=300)
    assert values == pytest.approx(expected)


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, int), "logits must not be empty"),
        (np.zeros(3), np.zeros(3, int), "logits must have 2 dimension"),
        (np.array([[np.nan, 0.0]]), np.zeros(1, int), "logits must be finite, but 1 of 2"),
        (np.array([[np.inf, 0.0]]), np.zeros(1, int), "logits must be finite"),
        (np.array([["a", "b"]]), np.zeros(1, int), "logits must hold real numbers"),
        (np.zeros((2, 3)), np.zeros(3, int), r"targets must have shape \(2,\)"),
        (np.zeros((2, 3)), np.zeros((2, 1), int), r"targets must have shape \(2,\)"),
        (np.zeros((2, 3)), np.zeros(2), "targets must hold class indices, but has dtype float64"),
        (np.zeros((2, 3)), np.array([0, 3]), r"targets must lie in \[0, 2\]"),
        (np.zeros((2, 3)), np.array([-1, 0]), r"targets must lie in \[0, 2\]"),
    ],
)
def test_invalid_arrays_are_named(logits, targets, message):
    for function in (cross_entropy, share_correct):
        with pytest.raises(ValueError, match=message):
            function(logits, targets)
    with pytest.raises(ValueError, match="test_" + message):
        compute_all({"test_logits": logits, "test_targets": targets})
