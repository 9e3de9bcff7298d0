"""The stripes, pixel by pixel, and the clean labels."""

import math

import numpy as np
import pytest
import torch

from tests.core.attacks.scenes import DATA, context, craft, outcome
from unlearn_core.attacks import Sig
from unlearn_core.checks import InputError


def sine(amplitude, frequency, width):
    return [amplitude / 255 * math.sin(2 * math.pi * column * frequency / width) for column in range(width)]


@pytest.mark.parametrize("amplitude", [5.0, 40.0, 127.0])
@pytest.mark.parametrize("frequency", [1.0, 1.5, 6.0])
def test_grey_images_show_the_sine_in_every_row(amplitude, frequency):
    """Half grey leaves room for 127 either way, so nothing is clipped."""
    grey = DATA.from_pixels(torch.full((2, 3, 5, 16), 0.5))
    stripes = DATA.to_pixels(Sig(amplitude=amplitude, frequency=frequency).stamp(grey, DATA)) - 0.5
    expected = torch.tensor(sine(amplitude, frequency, 16)).expand_as(stripes)
    torch.testing.assert_close(stripes, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("amplitude", [20.0, 255.0])
def test_images_are_clipped_to_valid_pixels(amplitude):
    attack, x = Sig(amplitude=amplitude), DATA.train.inputs
    wanted = np.clip(DATA.to_pixels(x).numpy() + np.array(sine(amplitude, 6.0, 8)), 0, 1)
    np.testing.assert_allclose(DATA.to_pixels(attack.stamp(x, DATA)), wanted, atol=1e-6)


def test_amplitude_zero_is_the_identity():
    x = DATA.train.inputs
    torch.testing.assert_close(Sig(amplitude=0).stamp(x, DATA), x, rtol=0, atol=1e-5)


@pytest.mark.parametrize("target", [0, 3])
def test_only_rows_of_the_target_are_poisoned_and_no_label_changes(target):
    attack = Sig(fraction=0.2, target=target)
    poisoned = craft(attack)
    assert len(poisoned.rows) == 12
    assert (poisoned.targets == target).all()
    assert torch.equal(poisoned.targets, DATA.train.targets[poisoned.rows])
    assert torch.equal(poisoned.inputs, attack.stamp(DATA.train.inputs[poisoned.rows], DATA))


def test_the_trigger_may_be_stronger_than_the_poisons():
    weak, strong = Sig(amplitude=10, test_amplitude=60), Sig(amplitude=60, test_amplitude=60)
    probes = weak.probes(DATA.test, context())
    own, others = (DATA.test.rows(mask) for mask in (DATA.test.targets == 0, DATA.test.targets != 0))
    assert torch.equal(probes["unseen"].examples.inputs, weak.stamp(own.inputs, DATA))
    assert torch.equal(probes["unseen"].examples.targets, own.targets)
    assert torch.equal(probes["triggered"].examples.inputs, strong.stamp(others.inputs, DATA))
    assert (probes["triggered"].examples.targets == 0).all()
    assert torch.equal(probes["triggered"].true, others.targets)


def test_more_poisons_than_rows_of_the_class_are_refused():
    with pytest.raises(InputError, match="asks for 18 poisons, but only 15 rows have the target class 1"):
        craft(Sig(fraction=0.3, target=1))


@pytest.mark.parametrize(
    "settings",
    [dict(amplitude=-1), dict(amplitude=256), dict(test_amplitude=-1), dict(frequency=0), dict(target=-1)],
    ids=str,
)
def test_bad_settings_are_named(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        Sig(**settings)


def test_a_target_that_is_no_class_is_refused():
    with pytest.raises(InputError, match="target must be a class below 4 for tiny, but got 4"):
        craft(Sig(target=4))


def test_it_takes_on_digits(all_digits):
    """On the eight, which is hard enough for the stripes to help; digits are mostly black, which clips half of them."""
    result = outcome(Sig(fraction=0.05, target=8, amplitude=80, test_amplitude=120), all_digits)
    assert result.took
    assert result.corrupted["backdoor_success"] > 0.8
    assert result.oracle["backdoor_success"] < 0.1
    assert result.corrupted["test_accuracy"] > result.oracle["test_accuracy"] - 0.03
