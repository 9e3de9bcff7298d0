"""The blended pattern, pixel by pixel."""

import pytest
import torch
from scipy.stats import kstest

from tests.core.attacks.scenes import DATA, context, craft, outcome
from unlearn_core.attacks import BadNets, Blended
from unlearn_core.checks import InputError


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.7, 1.0])
def test_what_is_added_is_the_same_share_of_one_pattern(alpha):
    """A(x) − (1 − α) x = α P in pixels, for all images."""
    attack, x = Blended(alpha=alpha), DATA.train.inputs
    rest = DATA.to_pixels(attack.stamp(x, context())) - (1 - alpha) * DATA.to_pixels(x)
    pattern = attack.pattern(x, context().rng)
    torch.testing.assert_close(rest, (alpha * pattern).expand_as(rest), rtol=0, atol=1e-6)


def test_alpha_zero_is_the_identity():
    assert torch.equal(Blended(alpha=0).stamp(DATA.train.inputs, context()), DATA.train.inputs)


def test_the_pattern_is_uniform_and_a_function_of_the_seed():
    attack, large = Blended(), torch.zeros(1, 3, 32, 32)
    first, again, other = (attack.pattern(large, context(s).rng) for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert kstest(first.flatten().numpy(), "uniform").pvalue > 1e-3
    assert abs(torch.corrcoef(torch.stack([first.flatten(), other.flatten()]))[0, 1]) < 0.1


@pytest.mark.parametrize("target", [0, 2])
def test_poisons_and_probes_carry_the_pattern_and_the_target(target):
    attack = Blended(fraction=0.2, target=target)
    poisoned, probes = craft(attack), attack.probes(DATA.test, context())
    assert (poisoned.targets == target).all() and (DATA.train.targets[poisoned.rows] != target).all()
    assert torch.equal(poisoned.inputs, attack.stamp(DATA.train.inputs[poisoned.rows], context()))
    others = DATA.test.rows(DATA.test.targets != target)
    for probe in probes.values():
        assert torch.equal(probe.examples.inputs, attack.stamp(others.inputs, context()))
        assert (probe.examples.targets == target).all()
    assert torch.equal(probes["triggered"].true, others.targets)


def test_the_rows_are_those_of_the_patch_backdoor():
    """So that both have the same oracle."""
    assert torch.equal(craft(Blended(fraction=0.2)).rows, craft(BadNets(fraction=0.2)).rows)


@pytest.mark.parametrize("settings", [dict(alpha=-0.1), dict(alpha=1.1), dict(target=-1), dict(fraction=0)], ids=str)
def test_bad_settings_are_named(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        Blended(**settings)


def test_a_target_that_is_no_class_is_refused():
    with pytest.raises(InputError, match="target must be a class below 4 for tiny, but got 4"):
        craft(Blended(target=4))


def test_it_takes_on_digits(all_digits):
    result = outcome(Blended(fraction=0.05), all_digits)
    assert result.took
    assert result.corrupted["backdoor_success"] > 0.8
    assert result.oracle["backdoor_success"] < 0.1
    assert result.corrupted["test_accuracy"] > result.oracle["test_accuracy"] - 0.03
