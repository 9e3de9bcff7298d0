"""Entropies and divergences of logits against loops in high precision, scipy and closed forms."""

import math
from decimal import Decimal, localcontext

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.distance import jensenshannon
from scipy.special import log_softmax as scipy_log_softmax
from scipy.stats import entropy as scipy_entropy

from unlearn_core.metrics.softmax import entropy, jensen_shannon, log_complement, log_softmax, modified_entropy

LOGITS = hnp.arrays(np.float64, st.tuples(st.integers(1, 5), st.integers(2, 6)), elements=st.floats(-300, 300))
BITS = math.log(2)


def exact(logits):
    """p and 1 - p of each class of one row, to 400 digits."""
    with localcontext() as context:
        context.prec = 400
        raw = [Decimal(float(x)).exp() for x in logits]
        return [x / sum(raw) for x in raw], [sum(raw[:i] + raw[i + 1 :]) / sum(raw) for i in range(len(raw))]


def exact_modified_entropy(logits, target):
    """The published formula term by term: -(1 - p_y) log p_y - sum over other c of p_c log(1 - p_c)."""
    with localcontext() as context:
        context.prec = 400
        p, rest = exact(logits)
        others = sum(p[c] * rest[c].ln() for c in range(len(p)) if c != target)
        return float(-rest[target] * p[target].ln() - others)


@given(LOGITS)
def test_log_softmax_and_entropy_equal_scipy(logits):
    log_p = log_softmax(logits)
    np.testing.assert_allclose(log_p, scipy_log_softmax(logits, axis=1), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(entropy(log_p), scipy_entropy(np.exp(log_p), axis=1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("row", [[0.0, 0.0], [3.0, 1.0, -2.0], [60.0, 0.0, -5.0], [0.0, 250.0, 249.0], [-200.0, 200.0]])
def test_complements_keep_their_digits(row):
    """1 - p of a sure class is 1e-27 here, or 1e-174, and would round to 0."""
    _, rest = exact(row)
    with localcontext() as context:
        context.prec = 400
        expected = [float(value.ln()) for value in rest]
    np.testing.assert_allclose(log_complement(log_softmax(np.array([row])))[0], expected, rtol=1e-12)


def test_one_class_has_no_complement():
    with pytest.raises(ValueError, match="at least two classes, but have 1"):
        log_complement(np.zeros((3, 1)))


@pytest.mark.parametrize("seed", range(20))
def test_modified_entropy_equals_the_formula(seed):
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(scale=(1, 10, 100)[seed % 3], size=(4, 5)), rng.integers(0, 5, 4)
    expected = [exact_modified_entropy(row, target) for row, target in zip(logits, targets, strict=True)]
    np.testing.assert_allclose(modified_entropy(log_softmax(logits), targets), expected, rtol=1e-9, atol=1e-300)


def test_modified_entropy_in_closed_form():
    even = log_softmax(np.zeros((1, 2)))
    assert modified_entropy(even, np.array([0])) == pytest.approx(math.log(2))  # two terms of (log 2) / 2
    guess = log_softmax(np.zeros((1, 10)))  # -(0.9) log 0.1 - 9 * 0.1 * log 0.9
    assert modified_entropy(guess, np.array([3])) == pytest.approx(0.9 * math.log(10) - 0.9 * math.log(0.9))
    sure = log_softmax(np.array([[1e4, 0.0, 0.0]]))
    assert modified_entropy(sure, np.array([0])) == 0  # certain and right
    # Certain and wrong: p = exp(-10 000) of the label, and 1 - p of the other is 2 exp(-10 000).
    assert modified_entropy(sure, np.array([1])) == pytest.approx(2e4 - math.log(2))


@given(LOGITS, st.data())
def test_modified_entropy_is_finite_and_not_negative(logits, data):
    targets = np.array([data.draw(st.integers(0, logits.shape[1] - 1)) for _ in logits])
    values = modified_entropy(log_softmax(logits), targets)
    assert np.isfinite(values).all() and (values >= 0).all()


def published_svc_feature(p, targets):
    """The form in a public evaluation script: every row gets the label columns of all rows, and log p stands where
    log(1 - p) belongs."""
    weights = p.copy()
    weights[:, targets] = 1 - p[:, targets]
    return -(weights * np.log(p)).sum(axis=1)


def test_defect_04_modified_entropy_of_a_row_is_that_of_its_own_label():
    """Defect 4: indexing whole columns by the labels, and the logarithm of the wrong tensor."""
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8], [0.3, 0.4, 0.3]])
    targets = np.array([0, 2, 1])
    ours = modified_entropy(np.log(p), targets)
    by_hand = [
        -0.3 * math.log(0.7) - 0.2 * math.log(0.8) - 0.1 * math.log(0.9),
        -0.2 * math.log(0.8) - 0.1 * math.log(0.9) - 0.1 * math.log(0.9),
        -0.6 * math.log(0.4) - 0.3 * math.log(0.7) - 0.3 * math.log(0.7),
    ]
    np.testing.assert_allclose(ours, by_hand)
    alone = [modified_entropy(np.log(p[i : i + 1]), targets[i : i + 1])[0] for i in range(3)]
    np.testing.assert_array_equal(ours, alone)  # no row depends on the labels of the others
    wrong = published_svc_feature(p, targets)
    assert np.all(wrong > 1.3 * ours)
    assert wrong[0] != pytest.approx(published_svc_feature(p[:1], targets[:1])[0])


@given(LOGITS, st.integers(0, 2**32 - 1))
def test_jensen_shannon_equals_scipy(logits, seed):
    first = log_softmax(logits / 10)
    second = log_softmax(np.random.default_rng(seed).normal(scale=5, size=logits.shape))
    expected = jensenshannon(np.exp(first), np.exp(second), axis=1, base=2) ** 2  # scipy gives the square root
    ours = jensen_shannon(first, second)
    np.testing.assert_allclose(ours, np.nan_to_num(expected), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(ours, jensen_shannon(second, first), atol=1e-12)
    assert (ours >= 0).all() and (ours <= 1).all()


def test_jensen_shannon_at_its_ends():
    sure = log_softmax(1e30 * np.eye(3))  # every class certain in turn, the others underflow
    assert jensen_shannon(sure, sure) == pytest.approx(0)
    assert jensen_shannon(sure, sure[[1, 2, 0]]) == pytest.approx(1)


def test_jensen_shannon_of_a_certain_and_an_even_row():
    """p = (1, 0), q = (1/2, 1/2): JS = H(3/4, 1/4) - (0 + 1) / 2 bits."""
    value = jensen_shannon(log_softmax(np.array([[900.0, 0.0]])), log_softmax(np.zeros((1, 2))))
    assert value == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)) / BITS - 0.5)


@pytest.mark.parametrize("extra", [1, 8, 90])
def test_defect_15_divergence_is_not_divided_by_the_number_of_classes(extra):
    """Defect 15: a mean over classes shrinks when classes are added that neither model ever predicts."""
    logits = np.array([[2.0, 0.0], [-1.0, 1.5]]), np.array([[0.0, 1.0], [3.0, 0.0]])
    padded = [np.pad(rows, ((0, 0), (0, extra)), constant_values=-800.0) for rows in logits]
    plain, more = (jensen_shannon(log_softmax(a), log_softmax(b)) for a, b in (logits, padded))
    np.testing.assert_allclose(more, plain, rtol=1e-12)
