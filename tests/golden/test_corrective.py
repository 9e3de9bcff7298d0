"""Healed share and utility on every small case."""

import itertools

import numpy as np
import pytest

from unlearn_core.metrics import compute_all, share_error


def arrays(predicted, true, right):
    """Poisons predicted so, with these true labels; and four held-out rows, so many of them right."""
    return {
        "forget_logits": 5 * np.eye(3, dtype=np.float32)[np.array(predicted)],
        "forget_true": np.array(true),
        "forget_targets": (np.array(true) + 1) % 3,
        "test_logits": 5 * np.eye(3, dtype=np.float32)[[0] * right + [1] * (4 - right)],
        "test_targets": np.zeros(4, int),
    }


def test_every_prediction_of_three_poisons():
    true = [0, 1, 2]
    for predicted, right in itertools.product(itertools.product(range(3), repeat=3), range(5)):
        values = compute_all(arrays(predicted, true, right))
        healed = sum(p == t for p, t in zip(predicted, true, strict=True))
        assert values["healed"] == healed / 3
        assert values["healed_se"] == share_error(successes=healed, trials=3)
        assert values["utility"] == values["test_accuracy"] == right / 4
        assert values["utility_times_healed"] == pytest.approx(healed / 3 * right / 4)


def test_memory_of_a_wrong_label_is_what_healing_undoes():
    """A model that knows every poison label has healed none."""
    values = compute_all(arrays([1, 2, 0], [0, 1, 2], 4))
    assert (values["forget_accuracy"], values["healed"]) == (1, 0)


def test_only_wrong_labels_can_be_healed():
    """Of three poisons one keeps its label: two are left, of which one is put right."""
    values = compute_all(arrays([0, 1, 0], [0, 1, 2], 4) | {"forget_targets": np.array([1, 1, 0])})
    assert values["healed"] == 1 / 2 and values["healed_se"] == share_error(successes=1, trials=2)
    clean_label = compute_all(arrays([0, 1, 0], [0, 1, 2], 4) | {"forget_targets": np.array([0, 1, 2])})
    assert all(np.isnan(clean_label[name]) for name in ("healed", "healed_se", "utility_times_healed"))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"forget_true": np.array([0, 1])}, r"forget_true must have shape \(3,\)"),
        ({"forget_true": np.array([0, 1, 3])}, r"forget_true must lie in \[0, 2\]"),
        ({"forget_logits": np.full((3, 3), np.nan)}, "forget_logits must be finite"),
        ({"test_targets": np.array([0, 1])}, "test_targets must have shape"),
    ],
)
def test_invalid_arrays_are_named(changed, message):
    with pytest.raises(ValueError, match=message):
        compute_all(arrays([0, 1, 2], [0, 1, 2], 4) | changed)
