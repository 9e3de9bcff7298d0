"""Targets hit and matched gradients, on cases with known answers."""

import itertools

import numpy as np
import pytest
from scipy.special import softmax

from unlearn_core.metrics import compute_all, share_error
from unlearn_core.registry import METRICS

ALL = METRICS.get("targeted")


def arrays(predictions, true, wanted, *, test_predictions=(0, 1, 2), test_targets=(0, 1, 2)):
    return {
        "targeted_logits": 2 * np.eye(3, dtype=np.float32)[np.array(predictions)],
        "targeted_targets": np.array(wanted),
        "targeted_true": np.array(true),
        "test_logits": 2 * np.eye(3, dtype=np.float32)[np.array(test_predictions)],
        "test_targets": np.array(test_targets),
    }


def test_hits_on_every_prediction_of_four_targets():
    for predictions in itertools.product(range(3), repeat=4):
        values = ALL(arrays(predictions, [1] * 4, [2] * 4))
        assert values["target_hits"] == predictions.count(2) / 4
        assert values["target_hits_se"] == share_error(successes=predictions.count(2), trials=4) > 0
        assert values["target_accuracy"] == predictions.count(1) / 4


def test_confidence_is_the_mean_probability_of_the_wanted_class():
    made = arrays([0, 1], [1, 0], [0, 2]) | {"targeted_logits": np.random.default_rng(0).standard_normal((2, 3))}
    probabilities = softmax(made["targeted_logits"], axis=1)
    expected = (probabilities[0, 0] + probabilities[1, 2]) / 2
    assert ALL(made)["target_confidence"] == pytest.approx(expected, abs=1e-12)


def test_base_rate_counts_rows_of_the_true_class_taken_for_the_wanted_one():
    made = arrays([0], [1], [2], test_predictions=[2, 2, 1, 2, 0], test_targets=[1, 1, 1, 0, 1])
    assert ALL(made)["target_base_rate"] == 2 / 4
    pairs = arrays([0, 0], [1, 0], [2, 2], test_predictions=[2, 2, 1, 2, 0], test_targets=[1, 1, 1, 0, 1])
    assert ALL(pairs)["target_base_rate"] == (2 / 4 + 1 / 1) / 2


def test_base_rate_is_undefined_without_rows_of_the_class():
    assert np.isnan(ALL(arrays([0], [1], [2], test_predictions=[0], test_targets=[0]))["target_base_rate"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"targeted_true": np.array([2, 1])}, "targeted_true must differ from targeted_targets, but is equal in 1"),
        ({"targeted_true": np.array([1])}, r"targeted_true must have shape \(2,\)"),
        ({"targeted_targets": np.array([0.0, 0.0])}, "targeted_targets must hold class indices"),
        ({"targeted_logits": np.full((2, 3), np.nan)}, "targeted_logits must be finite"),
    ],
)
def test_invalid_arrays_are_named(changed, message):
    with pytest.raises(ValueError, match=message):
        compute_all(arrays([1, 1], [1, 1], [2, 2]) | changed)


def test_the_objective_is_passed_on():
    assert compute_all({"matching": np.array([1.05, 0.08])}) == {"matching_first": 1.05, "matching_last": 0.08}


@pytest.mark.parametrize("facts", [[1.0], [1.0, -0.1], [2.1, 0.5], [1.0, np.nan]])
def test_impossible_objectives_are_refused(facts):
    with pytest.raises(ValueError, match="matching"):
        compute_all({"matching": np.array(facts)})
