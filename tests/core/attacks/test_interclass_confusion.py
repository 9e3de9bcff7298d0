"""Exchanged labels of two classes, from the rows to the metric."""

import itertools

import numpy as np
import pytest
import torch

from tests.contracts.tiny import examples, model
from tests.core.attacks.scenes import DATA, context, craft, outcome
from unlearn_core.attacks import InterclassConfusion
from unlearn_core.checks import InputError
from unlearn_core.scenarios.evaluation import Evaluator


@pytest.mark.parametrize("pair", list(itertools.permutations(range(4), 2)))
@pytest.mark.parametrize(("fraction", "half"), [(0.01, 1), (0.1, 3), (0.2, 6), (0.5, 15)])
def test_half_of_the_poisons_come_from_each_class(pair, fraction, half):
    poisoned = craft(InterclassConfusion(fraction=fraction, first=pair[0], second=pair[1]))
    own = DATA.train.targets[poisoned.rows]
    assert [int((own == label).sum()) for label in pair] == [half, half]
    assert all({y, z} == set(pair) for y, z in zip(own.tolist(), poisoned.targets.tolist(), strict=True))
    assert torch.equal(poisoned.inputs, DATA.train.inputs[poisoned.rows])
    full, mask = poisoned.apply(DATA.train)
    assert torch.equal(full.targets != DATA.train.targets, mask)


@pytest.mark.parametrize("pair", list(itertools.permutations(range(4), 2)))
def test_exchanging_twice_restores_and_leaves_others_alone(pair):
    attack, targets = InterclassConfusion(first=pair[0], second=pair[1]), DATA.train.targets
    exchanged = attack.exchange(targets)
    assert torch.equal(attack.exchange(exchanged), targets)
    assert set(targets[exchanged != targets].tolist()) == set(pair)


def test_fresh_poisons_are_held_out_rows_of_the_pair_with_exchanged_labels():
    attack = InterclassConfusion(first=1, second=2)
    unseen = attack.probes(DATA.test, context())["unseen"].examples
    kept = DATA.test.rows((DATA.test.targets == 1) | (DATA.test.targets == 2))
    assert torch.equal(unseen.inputs, kept.inputs) and torch.equal(unseen.ids, kept.ids)
    assert torch.equal(unseen.targets, 3 - kept.targets)


def test_constants_of_the_evidence_reach_the_metrics():
    held_out = examples(40)
    evidence = {"array.confused_classes": torch.tensor([1, 3]), "secret": torch.zeros(2)}
    evaluator = Evaluator(held_out, held_out, held_out, {}, evidence, None)
    arrays = evaluator.arrays(model())
    np.testing.assert_array_equal(arrays["confused_classes"], [1, 3])
    assert not any("secret" in name for name in arrays)
    predicted, true = arrays["test_logits"].argmax(1).tolist(), held_out.targets.tolist()
    confused = sum({p, t} == {1, 3} for p, t in zip(predicted, true, strict=True))
    assert evaluator(model())["interclass_confusion"] == confused / sum(t in (1, 3) for t in true)


def test_a_pair_of_one_class_is_refused():
    with pytest.raises(InputError, match="first and second must be different classes, but both are 2"):
        InterclassConfusion(first=2, second=2)


@pytest.mark.parametrize("settings", [dict(first=-1), dict(second=-1), dict(fraction=0)], ids=str)
def test_bad_settings_are_named(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        InterclassConfusion(**settings)


@pytest.mark.parametrize(("settings", "message"), [
    (dict(first=4, second=1), "first must be a class below 4 for tiny, but got 4"),
    (dict(first=1, second=9), "second must be a class below 4 for tiny, but got 9"),
])  # fmt: skip
def test_classes_that_do_not_exist_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        craft(InterclassConfusion(**settings))


def test_too_few_rows_of_a_class_are_refused():
    few = DATA.train.rows((DATA.train.targets != 1) | (torch.arange(60) < 8))  # two rows of class 1 are left
    with pytest.raises(InputError, match="asks for 5 poisons, but only 2 rows have the class 1"):
        InterclassConfusion(fraction=0.2, first=0, second=1).craft(few, context())


def test_it_takes_on_digits(all_digits):
    """Threes and eights: other digits stay what they were."""
    result = outcome(InterclassConfusion(fraction=0.12, first=3, second=8), all_digits)
    assert result.took
    assert result.corrupted["interclass_confusion"] > 0.3
    assert result.oracle["interclass_confusion"] < 0.1
    assert abs(result.corrupted["other_classes_accuracy"] - result.oracle["other_classes_accuracy"]) < 0.02
    assert result.corrupted["forget_accuracy"] > 0.5 > result.oracle["forget_accuracy"]
