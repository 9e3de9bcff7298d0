"""Which labels each mode of label flipping gives to which rows."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from tests.contracts.tiny import model
from tests.core.attacks.scenes import CLASSES, DATA, context, craft, outcome
from unlearn_core.attacks import Gaussian, LabelFlip
from unlearn_core.attacks.label_flip import MODES, margin, shuffle_all, uniform_other
from unlearn_core.checks import InputError
from unlearn_core.training import predict


def flip(mode="uniform_other", seed=0, **settings):
    settings = dict(fraction=0.2, source=1, target=3) | settings
    return craft(LabelFlip(mode=mode, **settings), seed, clean_model=model)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.25])
def test_every_label_really_changes_and_no_input_does(mode, fraction):
    poisoned = flip(mode, fraction=fraction)
    assert len(poisoned.rows) == round(60 * fraction)
    assert (poisoned.targets != DATA.train.targets[poisoned.rows]).all()
    assert torch.equal(poisoned.inputs, DATA.train.inputs[poisoned.rows])


@pytest.mark.parametrize("mode", ["uniform_other", "cyclic", "permute"])
def test_rows_are_shared_with_other_attacks(mode):
    assert torch.equal(flip(mode, fraction=0.4).rows, craft(Gaussian(fraction=0.4)).rows)


@pytest.mark.parametrize("mode", ["uniform_other", "cyclic", "pair", "hard"])
def test_a_rows_label_does_not_depend_on_the_fraction(mode):
    small, large = flip(mode, fraction=0.05), flip(mode, fraction=0.25)
    assert torch.equal(large.rows[:3], small.rows) and torch.equal(large.targets[:3], small.targets)


@pytest.mark.parametrize("mode", ["uniform_other", "cyclic", "pair", "permute"])
def test_only_hard_asks_for_a_model(mode):
    """The context fails the test if it is asked for one."""
    craft(LabelFlip(mode=mode, fraction=0.2, source=1, target=3))


def test_other_classes_are_equally_likely():
    given = torch.arange(30_000) % CLASSES
    steps = (uniform_other(given, DATA, torch.Generator().manual_seed(0)) - given) % CLASSES
    for label in range(CLASSES):
        counts = torch.bincount(steps[given == label], minlength=CLASSES).tolist()
        assert counts[0] == 0
        assert chisquare(counts[1:]).pvalue > 1e-3


@pytest.mark.parametrize(("source", "target"), list(itertools.permutations(range(CLASSES), 2)))
def test_pair_moves_one_class_to_another(source, target):
    poisoned = flip("pair", source=source, target=target)
    assert (DATA.train.targets[poisoned.rows] == source).all() and (poisoned.targets == target).all()


def test_cyclic_moves_every_class_to_the_next():
    poisoned = flip("cyclic", fraction=0.5)
    assert torch.equal(poisoned.targets, (DATA.train.targets[poisoned.rows] + 1) % CLASSES)


def test_permute_keeps_the_size_of_each_class():
    poisoned = flip("permute", fraction=0.5)
    before, after = (
        torch.bincount(t, minlength=CLASSES) for t in (DATA.train.targets[poisoned.rows], poisoned.targets)
    )
    assert torch.equal(before, after)


@pytest.mark.parametrize("size", range(1, 8))
def test_shuffle_of_every_short_list(size):
    """All lists of three classes: shuffled without a row that keeps its label, exactly where that is possible."""
    for labels in itertools.product(range(3), repeat=size):
        given = torch.tensor(labels)
        if max(labels.count(c) for c in labels) * 2 > size:
            with pytest.raises(InputError, match=f"must change all {size} labels"):
                shuffle_all(given, torch.Generator().manual_seed(0))
            continue
        shuffled = shuffle_all(given, torch.Generator().manual_seed(0))
        assert sorted(shuffled.tolist()) == sorted(labels)
        assert (shuffled != given).all()


def test_shuffle_mixes_all_classes():
    """Each class gets labels of all others, about as many of each."""
    given = torch.arange(4000) % CLASSES
    shuffled = shuffle_all(given, torch.Generator().manual_seed(0))
    for label in range(CLASSES):
        counts = torch.bincount(shuffled[given == label], minlength=CLASSES)
        others = [int(counts[c]) for c in range(CLASSES) if c != label]
        assert chisquare(others).pvalue > 1e-3


def test_margin_by_hand():
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0], [0.0, 0.0, 5.0]])
    assert margin(logits, torch.tensor([0, 1, 2])).tolist() == [1.0, -2.0, 5.0]


@pytest.mark.parametrize("which", ["largest", "smallest"])
def test_hard_takes_the_rows_of_extreme_margin(which):
    poisoned = flip("hard", margin=which)
    logits = predict(model(), DATA.train.inputs).numpy()
    margins = []
    for row, label in enumerate(DATA.train.targets.tolist()):
        margins.append(logits[row, label] - max(logits[row, c] for c in range(CLASSES) if c != label))
    order = np.argsort(margins)
    expected = order[::-1][:12] if which == "largest" else order[:12]
    assert poisoned.rows.tolist() == expected.tolist()
    assert torch.equal(poisoned.targets, (DATA.train.targets[poisoned.rows] + 1) % CLASSES)


@pytest.mark.parametrize("mode", MODES)
def test_fresh_poisons_are_flipped_in_the_same_way(mode):
    attack = LabelFlip(mode=mode, source=1, target=3)
    unseen = attack.probes(DATA.test, context())["unseen"].examples
    own = {int(i): int(t) for i, t in zip(DATA.test.ids, DATA.test.targets, strict=True)}
    pairs = [(own[int(i)], int(t)) for i, t in zip(unseen.ids, unseen.targets, strict=True)]
    assert all(y != z for y, z in pairs)
    if mode == "pair":
        assert pairs == [(1, 3)] * 6
    elif mode in ("cyclic", "hard"):
        assert all(z == (y + 1) % CLASSES for y, z in pairs)
    else:
        assert len(pairs) == 24 and len(set(pairs)) > CLASSES


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(mode="pairs"), "mode 'pairs' is unknown; did you mean 'pair'"),
        (dict(margin="large"), "margin 'large' is unknown; did you mean 'largest'"),
        (dict(source=2, target=2), "source and target must be different classes, but both are 2"),
        (dict(source=-1), "source must be zero or a positive number"),
        (dict(fraction=0.7), "fraction must lie in"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        LabelFlip(**settings)


@pytest.mark.parametrize("field", ["source", "target"])
def test_a_class_that_does_not_exist_is_refused(field):
    with pytest.raises(InputError, match=f"{field} must be a class below 4 for tiny, but got 4"):
        flip("pair", **{field: 4})


def test_more_flips_than_rows_of_the_source_are_refused():
    with pytest.raises(InputError, match="asks for 18 poisons, but only 15 rows have the source class 1"):
        flip("pair", fraction=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_it_takes_on_digits_and_the_flipped_labels_are_remembered(mode, digits, all_digits):
    """Random flips need few rows and long training: what a model cannot generalise it has to memorise."""
    if mode in ("uniform_other", "permute"):
        result = outcome(LabelFlip(mode=mode, fraction=0.4), digits, epochs=60)
    else:
        settings = dict(fraction=0.09, source=3, target=8) if mode == "pair" else dict(fraction=0.3)
        result = outcome(LabelFlip(mode=mode, **settings), all_digits)
    assert result.took
    assert result.oracle["test_error"] < 0.15
    assert result.corrupted["test_error"] > result.oracle["test_error"] + 0.05
    assert result.corrupted["forget_accuracy"] > result.oracle["forget_accuracy"] + 0.2


@pytest.mark.slow
def test_few_random_flips_are_remembered_though_held_out_rows_hardly_show_it(all_digits):
    """Why the primary metric looks at the poisons."""
    result = outcome(LabelFlip(fraction=0.02), all_digits, epochs=60)
    assert result.took
    assert result.corrupted["forget_accuracy"] > 0.7 and result.oracle["forget_accuracy"] < 0.1
    assert abs(result.corrupted["test_error"] - result.oracle["test_error"]) < 0.03


def test_a_model_that_never_saw_them_gives_random_labels_by_chance():
    """Whatever the model: a row is given its random wrong label with probability error / (C - 1)."""
    predicted = predict(model(), DATA.train.inputs).argmax(1)
    expected = float((predicted != DATA.train.targets).float().mean()) / (CLASSES - 1)
    hits = [(predicted[p.rows] == p.targets).float().mean().item() for p in (flip(seed=s) for s in range(300))]
    assert abs(np.mean(hits) - expected) < 4 * math.sqrt(expected * (1 - expected) / (300 * 12))


@pytest.mark.parametrize("mode", MODES)
def test_only_random_labels_have_nothing_in_common(mode):
    assert LabelFlip(mode=mode).regularity == ("low" if mode in ("uniform_other", "permute") else "medium")
