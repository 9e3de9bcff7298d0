"""Relearn time as a reduction of a loss curve, against a loop over it."""

import itertools

import numpy as np
import pytest

from unlearn_core.metrics import compute_all


def arrays(losses, target=1.0, passes=None):
    made = np.arange(len(losses)) / 4 if passes is None else np.array(passes)
    return {"relearn_losses": np.array(losses), "relearn_at": made, "relearn_target": np.array(target)}


def test_every_short_curve():
    for size in (1, 2, 3, 4):
        for losses in itertools.product([0.5, 1.0, 1.5], repeat=size):
            passes, censored = (size - 1) / 4, 1.0
            for check, loss in reversed(list(enumerate(losses))):
                if loss <= 1.0:
                    passes, censored = check / 4, 0.0
            values = compute_all(arrays(losses))
            assert (values["relearn_passes"], values["relearn_censored"]) == (passes, censored)


def test_a_model_that_still_knows_needs_no_pass():
    assert compute_all(arrays([1.0, 0.5]))["relearn_passes"] == 0


def test_checks_need_not_be_evenly_spaced():
    values = compute_all(arrays([3.0, 2.0, 0.9], passes=[0.0, 0.1, 7.0]))
    assert (values["relearn_passes"], values["relearn_censored"]) == (7, 0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"relearn_losses": np.array([np.nan, 1.0])}, "relearn_losses must be finite"),
        ({"relearn_at": np.array([0.0])}, "relearn_at must increase and have 2 values"),
        ({"relearn_at": np.array([0.0, 0.0])}, "relearn_at must increase"),
        ({"relearn_target": np.array([1.0])}, "relearn_target must have 0 dimension"),
        ({"relearn_target": np.array(np.inf)}, "relearn_target must be finite"),
    ],
)
def test_invalid_arrays_are_named(changed, message):
    with pytest.raises(ValueError, match=message):
        compute_all(arrays([2.0, 1.0]) | changed)
