"""The patch that moves every class to the next."""

import pytest
import torch

from tests.core.attacks.scenes import CLASSES, DATA, context, craft, outcome
from unlearn_core.attacks import BadNets, BadNetsAllToAll, Gaussian
from unlearn_core.checks import InputError


@pytest.mark.parametrize(("size", "offset", "value"), [(1, 0, 1.0), (3, 2, 0.3), (8, 0, 0.0)])
def test_the_patch_is_that_of_the_all_to_one_attack(size, offset, value):
    settings = dict(size=size, offset=offset, value=value)
    stamped = BadNetsAllToAll(**settings).stamp(DATA.train.inputs, DATA)
    assert torch.equal(stamped, BadNets(**settings).stamp(DATA.train.inputs, DATA))
    changed = (stamped != DATA.train.inputs).flatten(1).sum(1)
    assert (changed == 3 * size * size).all()


def test_every_class_moves_to_the_next():
    attack = BadNetsAllToAll(fraction=0.5)
    poisoned = craft(attack)
    own = DATA.train.targets[poisoned.rows]
    assert {(y, z) for y, z in zip(own.tolist(), poisoned.targets.tolist(), strict=True)} == {
        (0, 1),
        (1, 2),
        (2, 3),
        (3, 0),
    }
    assert torch.equal(poisoned.inputs, attack.stamp(DATA.train.inputs[poisoned.rows], DATA))


def test_success_is_counted_against_the_next_class_on_all_rows():
    probes = BadNetsAllToAll().probes(DATA.test, context())
    for probe in probes.values():
        assert torch.equal(probe.examples.targets, (DATA.test.targets + 1) % CLASSES)
        assert torch.equal(probe.examples.ids, DATA.test.ids)
    assert torch.equal(probes["triggered"].true, DATA.test.targets)


def test_any_row_may_be_poisoned():
    """As for Gaussian poisoning, so that both have the same oracle."""
    assert torch.equal(craft(BadNetsAllToAll(fraction=0.3)).rows, craft(Gaussian(fraction=0.3)).rows)


@pytest.mark.parametrize("settings", [dict(size=0), dict(value=1.5), dict(offset=-1), dict(fraction=0.6)], ids=str)
def test_bad_settings_are_named(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        BadNetsAllToAll(**settings)


def test_a_patch_beyond_the_image_is_refused():
    with pytest.raises(InputError, match="size 8 with offset 1 does not fit"):
        craft(BadNetsAllToAll(size=8, offset=1))


def test_it_takes_on_digits(all_digits):
    result = outcome(BadNetsAllToAll(fraction=0.15), all_digits)
    assert result.took
    assert result.corrupted["backdoor_success"] > 0.7
    assert result.oracle["backdoor_success"] < 0.1
    assert result.corrupted["test_accuracy"] > result.oracle["test_accuracy"] - 0.03
