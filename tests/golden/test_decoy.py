"""Specificity of a backdoor on every prediction of a few rows."""

import itertools
import math

import numpy as np
import pytest

from unlearn_core.metrics import compute_all, share_error


def arrays(predictions, true=(1, 2, 1), target=0, plain=(0, 0, 1, 2), plain_true=(0, 1, 1, 2)):
    one_hot = 5 * np.eye(3, dtype=np.float32)
    return {
        "decoy_logits": one_hot[list(predictions)],
        "decoy_targets": np.full(len(true), target),
        "decoy_true": np.array(true),
        "test_logits": one_hot[list(plain)],
        "test_targets": np.array(plain_true),
    }


def test_decoy_success_is_the_share_of_the_target():
    for predictions in itertools.product(range(3), repeat=3):
        values = compute_all(arrays(predictions))
        hits = predictions.count(0)
        assert values["decoy_success"] == hits / 3
        assert values["decoy_success_se"] == share_error(successes=hits, trials=3)


def test_plain_rows_of_other_classes_are_the_floor():
    for plain in itertools.product(range(3), repeat=4):
        others = [p for p, t in zip(plain, (0, 1, 1, 2), strict=True) if t != 0]
        assert compute_all(arrays((0, 1, 2), plain=plain))["untriggered_success"] == others.count(0) / 3


def test_several_wanted_classes_count_alike():
    made = arrays((0, 1, 2)) | {"decoy_targets": np.array([0, 1, 0])}
    made["decoy_true"] = np.array([1, 2, 2])
    floor = compute_all(made)["untriggered_success"]
    assert floor == pytest.approx((1 / 3 + 0 / 2) / 2)  # of 1, 1, 2: one is called 0; of 0, 2: none is called 1


def test_without_rows_of_other_classes_there_is_no_floor():
    assert math.isnan(compute_all(arrays((0, 1, 2), plain_true=(0, 0, 0, 0)))["untriggered_success"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"decoy_true": np.array([1, 0, 1])}, "decoy_true must differ from decoy_targets, but is equal in 1 rows"),
        ({"decoy_true": np.array([1])}, r"decoy_true must have shape \(3,\)"),
        ({"decoy_logits": np.full((3, 3), np.nan)}, "decoy_logits must be finite"),
        ({"test_targets": np.array([0, 1, 2, 3])}, r"test_targets must lie in \[0, 2\]"),
    ],
)
def test_invalid_arrays_are_named(changed, message):
    with pytest.raises(ValueError, match=message):
        compute_all(arrays((0, 1, 2)) | changed)
