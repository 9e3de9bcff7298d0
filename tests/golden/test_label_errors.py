"""Test error and interclass confusion against scikit-learn's confusion matrix, and on every small case."""

import itertools
import math

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from unlearn_core.metrics import compute_all, share_error


def arrays(predictions, true, pair=(0, 1), classes=3):
    return {
        "test_logits": 5 * np.eye(classes, dtype=np.float32)[np.array(predictions)],
        "test_targets": np.array(true),
        "confused_classes": np.array(pair),
    }


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pair", [(3, 5), (5, 3), (0, 9)])
def test_rates_of_the_confusion_matrix(seed, pair):
    rng = np.random.default_rng(seed)
    true, predicted = rng.integers(0, 10, 500), rng.integers(0, 10, 500)
    values = compute_all(arrays(predicted, true, pair, classes=10))
    cm, (a, b) = confusion_matrix(true, predicted, labels=range(10)), pair
    rows, confused = cm[a].sum() + cm[b].sum(), cm[a, b] + cm[b, a]
    others = [c for c in range(10) if c not in pair]
    assert values["interclass_confusion"] == pytest.approx(confused / rows)
    assert values["interclass_confusion_se"] == pytest.approx(share_error(successes=int(confused), trials=int(rows)))
    assert values["interclass_error"] == pytest.approx(1 - (cm[a, a] + cm[b, b]) / rows)
    assert values["other_classes_accuracy"] == pytest.approx(cm[others, others].sum() / cm[others].sum())
    wrong = 500 - int(np.trace(cm))
    assert values["test_error"] == pytest.approx(wrong / 500)
    assert values["test_error_se"] == pytest.approx(share_error(successes=wrong, trials=500))
    assert values["test_error"] == pytest.approx(1 - values["test_accuracy"])


def test_every_prediction_of_four_rows():
    true = [0, 1, 1, 2]
    for predicted in itertools.product(range(3), repeat=4):
        values = compute_all(arrays(predicted, true))
        inside = list(zip(predicted[:3], true[:3], strict=True))
        assert values["interclass_confusion"] == sum(p == 1 - t for p, t in inside) / 3
        assert values["interclass_error"] == pytest.approx(sum(p != t for p, t in inside) / 3)
        assert values["other_classes_accuracy"] == (predicted[3] == 2)


def test_two_classes_have_no_others():
    values = compute_all(arrays([0, 0, 1], [0, 1, 1], classes=2))
    assert math.isnan(values["other_classes_accuracy"])
    assert values["interclass_confusion"] == values["test_error"] == pytest.approx(1 / 3)


def test_errors_of_models_without_fault_are_not_certain():
    values = compute_all(arrays([0, 1, 2], [0, 1, 2]))
    assert values["test_error"] == values["interclass_confusion"] == 0
    assert values["test_error_se"] > 0 and values["interclass_confusion_se"] > 0


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"confused_classes": np.array([1, 1])}, "confused_classes must be different, but both are 1"),
        ({"confused_classes": np.array([0, 1, 2])}, r"confused_classes must hold two classes, but has shape \(3,\)"),
        ({"confused_classes": np.array([0, 3])}, r"confused_classes must lie in \[0, 2\]"),
        ({"confused_classes": np.array([0.0, 1.0])}, "confused_classes must hold class indices"),
        ({"test_targets": np.array([2, 2])}, "test_targets must have rows of the confused classes 0 and 1"),
        ({"test_logits": np.full((2, 3), np.nan)}, "test_logits must be finite"),
    ],
)
def test_invalid_arrays_are_named(changed, message):
    with pytest.raises(ValueError, match=message):
        compute_all(arrays([1, 1], [1, 2]) | changed)
