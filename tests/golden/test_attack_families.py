"""Backdoor, membership and distance families on cases with known answers."""

import itertools
import math

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.metrics import roc_auc_score

from unlearn_core.metrics import compute_all, share_error


def triggered(predictions, true, target=0, classes=3):
    predictions, true = np.array(predictions), np.array(true)
    return {
        "triggered_logits": 5 * np.eye(classes, dtype=np.float32)[predictions],
        "triggered_targets": np.full(len(true), target),
        "triggered_true": true,
    }


def test_backdoor_on_every_prediction_of_four_rows():
    true = [1, 2, 1, 2]
    for predictions in itertools.product(range(3), repeat=4):
        values = compute_all(triggered(predictions, true))
        assert values["backdoor_success"] == predictions.count(0) / 4
        assert values["backdoor_success_se"] == share_error(successes=predictions.count(0), trials=4)
        right = sum(p == t for p, t in zip(predictions, true, strict=True))
        assert values["backdoor_corrected_accuracy"] == right / 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"triggered_true": np.array([1, 0])}, "triggered_true must differ from triggered_targets, but is equal in 1"),
        ({"triggered_true": np.array([1])}, r"triggered_true must have shape \(2,\)"),
        ({"triggered_true": np.array([1, 3])}, r"triggered_true must lie in \[0, 2\]"),
        ({"triggered_targets": np.array([0.0, 0.0])}, "triggered_targets must hold class indices"),
        ({"triggered_logits": np.full((2, 3), np.nan)}, "triggered_logits must be finite"),
    ],
)
def test_backdoor_names_invalid_arrays(changed, message):
    with pytest.raises(ValueError, match=message):
        compute_all(triggered([1, 1], [1, 2]) | changed)


def membership(forget, unseen, classes=3, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {}
    for name, (rows, margin) in {"forget": forget, "unseen": unseen}.items():
        targets = rng.integers(0, classes, rows)
        logits = rng.standard_normal((rows, classes)) + margin * np.eye(classes)[targets]
        arrays |= {f"{name}_logits": logits.astype(np.float32), f"{name}_targets": targets}
    return arrays


def test_poisons_remembered_of_four():
    true = [0, 1, 2, 0]
    for predictions in itertools.product(range(3), repeat=4):
        logits = 5 * np.eye(3, dtype=np.float32)[np.array(predictions)]
        values = compute_all({"forget_logits": logits, "forget_targets": np.array(true)})
        kept = sum(p == t for p, t in zip(predictions, true, strict=True))
        assert values["forget_accuracy"] == kept / 4
        assert values["forget_accuracy_se"] == share_error(successes=kept, trials=4) > 0


def losses(arrays, name):
    logits, targets = arrays[f"{name}_logits"].astype(np.float64), arrays[f"{name}_targets"]
    return -log_softmax(logits, axis=1)[np.arange(len(targets)), targets]


def test_membership_equals_sklearn_and_the_best_threshold():
    arrays = membership((150, 1.5), (250, 0.5))
    values, member, outside = compute_all(arrays), losses(arrays, "forget"), losses(arrays, "unseen")
    labels = np.repeat([1, 0], [150, 250])
    assert values["membership_auc"] == pytest.approx(roc_auc_score(labels, -np.concatenate([member, outside])))
    cuts = np.concatenate([member, outside])
    caught, wrong = (np.array([np.mean(side <= cut + 1e-12) for cut in cuts]) for side in (member, outside))
    assert values["membership_advantage"] == pytest.approx(np.max(caught - wrong))
    assert values["membership_tpr"] == pytest.approx(np.max(caught[wrong <= 0.01]))


def test_membership_without_memory_is_a_coin_toss():
    areas = [compute_all(membership((60, 1.0), (60, 1.0), seed=s))["membership_auc"] for s in range(100)]
    z = (np.array(areas) - 0.5) / math.sqrt((60 + 60 + 1) / (12 * 60 * 60))  # variance of the rank sum under the null
    assert abs(z.mean()) < 4 / math.sqrt(100)
    assert z.std() == pytest.approx(1, abs=0.25)


def test_membership_of_the_same_rows():
    arrays = membership((500, 1.0), (5, 1.0))
    arrays |= {f"unseen_{part}": arrays[f"forget_{part}"] for part in ("logits", "targets")}
    values = compute_all(arrays)
    assert (values["membership_auc"], values["membership_advantage"]) == (0.5, 0)
    assert values["membership_tpr"] <= 0.01


def test_membership_perfect_and_overdone():
    perfect, overdone = (compute_all(membership(a, b)) for a, b in (((40, 50), (40, -50)), ((40, -50), (40, 50))))
    assert [perfect[f"membership_{name}"] for name in ("auc", "tpr", "advantage")] == [1, 1, 1]
    assert [overdone[f"membership_{name}"] for name in ("auc", "tpr", "advantage")] == [0, 0, 0]


def test_membership_keeps_tiny_losses_apart():
    """Losses around 1e-13 are equal to 0 in float32, but still tell members from others."""
    gaps = {"forget": 31.0, "unseen": 29.0}
    arrays = {f"{name}_logits": np.tile(np.array([gap, 0.0], np.float32), (9, 1)) for name, gap in gaps.items()}
    arrays |= {f"{name}_targets": np.zeros(9, int) for name in gaps}
    assert compute_all(arrays)["membership_auc"] == 1


@pytest.mark.parametrize("name", ["forget", "unseen"])
def test_membership_names_invalid_arrays(name):
    with pytest.raises(ValueError, match=f"{name}_logits must be finite"):
        compute_all(membership((4, 1), (4, 1)) | {f"{name}_logits": np.full((4, 3), np.nan, np.float32)})


def test_distance_passes_each_norm_to_its_column():
    shifts = {"shift_from_corrupted": np.array([1.0, 2.0]), "shift_from_oracle": np.array([3.0, 4.0])}
    expected = {"l1_from_corrupted": 1, "l2_from_corrupted": 2, "l1_from_oracle": 3, "l2_from_oracle": 4}
    assert compute_all(shifts) == expected


@pytest.mark.parametrize("bad", [[1.0], [1.0, -2.0], [1.0, np.nan], [[1.0, 2.0]], [], [1.0, 2.0, 3.0]])
@pytest.mark.parametrize("name", ["shift_from_corrupted", "shift_from_oracle"])
def test_distance_names_invalid_arrays(bad, name):
    good = {"shift_from_corrupted": np.ones(2), "shift_from_oracle": np.ones(2)}
    with pytest.raises(ValueError, match=f"{name} must"):
        compute_all(good | {name: np.array(bad)})
