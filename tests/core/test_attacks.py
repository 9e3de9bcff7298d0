"""The attacks' poisons, and the Gaussian score, against what they are defined to be."""

import copy
import itertools
import math

import pytest
import torch
from scipy.stats import kstest
from torch import nn
from torch.nn import functional

import unlearn_core.attacks  # noqa: F401  (registers them)
from tests.contracts.tiny import CPU, MODELS, SHAPE, examples, model
from unlearn_core.attacks import BadNets, Gaussian
from unlearn_core.checks import InputError
from unlearn_core.gradients.input_gradients import input_gradients, noise_alignment
from unlearn_core.models import Mlp, build_model
from unlearn_core.registry import ATTACKS
from unlearn_core.seeding import Streams
from unlearn_core.training import Recipe, train_updates
from unlearn_core.types import CraftContext, Dataset, Examples

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
TINY = {"gaussian": dict(fraction=0.1), "badnets": dict(fraction=0.1, size=2)}
every_attack = pytest.mark.parametrize("name", TINY)


def dataset(rows=60, seed=0):
    """Images of valid pixels, in three channels of different mean and deviation; ids are not positions."""
    random = torch.Generator().manual_seed(seed)
    empty = examples(0)
    made = Dataset("tiny", empty, empty, empty, classes=4, mean=MEAN, std=STD, digest="tiny")
    inputs = made.from_pixels(torch.rand(rows, *SHAPE, generator=random))
    return Examples(inputs, torch.arange(rows) % 4, torch.randperm(rows, generator=random) + 1000), made


TRAIN, DATASET = dataset()


def context(seed=0):
    return CraftContext(DATASET, Streams(seed, CPU), lambda: pytest.fail("needs no model"))


def craft(attack, train=TRAIN, seed=0):
    return attack.craft(train, context(seed))


@every_attack
def test_contract(name):
    attack = ATTACKS.get(name)(**TINY[name])
    given, state = copy.deepcopy(TRAIN), torch.get_rng_state()
    first, again, other = (craft(attack, given, seed=s) for s in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(vars(given).values(), vars(TRAIN).values(), strict=True))
    assert torch.equal(first.rows, attack.choose_rows(TRAIN, context(1)))
    assert len(first.rows) == len(first.inputs) == len(first.targets) == round(0.1 * 60)
    assert len(first.rows.unique()) == len(first.rows)
    assert torch.equal(first.inputs, again.inputs) and torch.equal(first.rows, again.rows)
    assert not torch.equal(first.rows, other.rows)
    probes = attack.probes(TRAIN, context(1))
    assert "unseen" in probes
    for probe in probes.values():
        assert len(probe.examples.inputs) == len(probe.examples.targets)


@every_attack
def test_smaller_fractions_are_contained_in_larger_ones(name):
    sets = [craft(ATTACKS.get(name)(**TINY[name] | dict(fraction=f))).rows for f in (0.05, 0.1, 0.25, 0.5)]
    for smaller, larger in itertools.pairwise(sets):
        assert torch.equal(larger[: len(smaller)], smaller)
    assert [len(s) for s in sets] == [3, 6, 15, 30]


def test_attacks_share_rows_where_they_can():
    gaussian, badnets = craft(Gaussian(fraction=0.5)), craft(BadNets(fraction=0.3))
    order = [row for row in gaussian.rows.tolist() if TRAIN.targets[row] != 0]
    common = min(len(order), len(badnets.rows))
    assert badnets.rows.tolist()[:common] == order[:common]


@every_attack
@pytest.mark.parametrize("fraction", [0.0, -0.1, 0.51, math.nan])
def test_impossible_fractions_are_refused(name, fraction):
    with pytest.raises(InputError, match="fraction"):
        ATTACKS.get(name)(fraction=fraction)


@pytest.mark.parametrize(("fraction", "count"), [(1e-9, 1), (0.049, 3), (0.051, 3), (0.29, 17)])
def test_a_fraction_is_rounded_to_the_nearest_count_but_never_to_none(fraction, count):
    assert len(craft(Gaussian(fraction=fraction)).rows) == count  # of 60


# Gaussian poisons


def test_noise_is_a_function_of_seed_and_row_id():
    """Whatever the batch, its order, or the fraction."""
    attack = Gaussian()
    whole = attack.noise(TRAIN, context(3), "noise")
    some = torch.tensor([7, 3, 50])
    assert torch.equal(attack.noise(TRAIN.rows(some), context(3), "noise"), whole[some])
    assert not torch.equal(attack.noise(TRAIN, context(4), "noise"), whole)
    assert not torch.equal(attack.noise(TRAIN, context(3), "unseen"), whole)
    small, large = (craft(Gaussian(fraction=f)).evidence["noise"] for f in (0.1, 0.4))
    assert torch.equal(large[: len(small)], small)


@pytest.mark.parametrize("epsilon", [0.1, 0.566, 2.0])
def test_poisons_are_inputs_plus_noise_of_the_stated_size(epsilon):
    poisoned = craft(Gaussian(fraction=0.5, epsilon=epsilon))
    base = TRAIN.rows(poisoned.rows)
    noise = poisoned.evidence["noise"]
    assert poisoned.mode == "replace"
    assert torch.equal(poisoned.inputs, base.inputs + noise)
    assert torch.equal(poisoned.evidence["base_inputs"], base.inputs)
    assert torch.equal(poisoned.targets, base.targets)
    assert poisoned.evidence["epsilon"].item() == pytest.approx(epsilon)
    assert kstest((noise / epsilon).flatten().numpy(), "norm").pvalue > 1e-3
    assert noise.std().item() == pytest.approx(epsilon, rel=5 / math.sqrt(2 * noise.numel()))


def test_clipped_poisons_are_valid_pixels_and_keep_the_unclipped_noise():
    clipped, free = (craft(Gaussian(fraction=0.5, epsilon=1.0, clip=c)) for c in (True, False))
    pixels, wanted = DATASET.to_pixels(clipped.inputs), DATASET.to_pixels(free.inputs)
    assert pixels.min() >= -1e-6 and pixels.max() <= 1 + 1e-6
    assert ((wanted < 0) | (wanted > 1)).float().mean() > 0.05
    torch.testing.assert_close(pixels, wanted.clamp(0, 1), rtol=0, atol=1e-6)
    assert torch.equal(clipped.evidence["noise"], free.evidence["noise"])
    unseen = Gaussian(epsilon=1.0, clip=True).probes(TRAIN, context())["unseen"].examples
    assert DATASET.to_pixels(unseen.inputs).max() <= 1 + 1e-6


def test_unseen_poisons_are_of_the_same_kind():
    attack = Gaussian(epsilon=0.5)
    unseen = attack.probes(TRAIN, context())["unseen"].examples
    noise = (unseen.inputs - TRAIN.inputs) / 0.5
    assert torch.equal(unseen.targets, TRAIN.targets)
    assert kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3
    planted = attack.noise(TRAIN, context(), "noise") / 0.5
    assert abs((noise * planted).mean().item()) < 5 / math.sqrt(noise.numel())


# The Gaussian score


@pytest.mark.parametrize("net", MODELS)
def test_scores_of_fresh_noise_are_standard_normal_for_any_net(net):
    rows = examples(50, seed=2)
    gradients = input_gradients(model(net), rows.inputs, rows.targets)
    noise = 0.7 * torch.randn(40, 50, *SHAPE, generator=torch.Generator().manual_seed(9))
    scores = noise_alignment(gradients, noise, 0.7)
    assert scores.shape == (40, 50)
    assert kstest(scores.flatten().numpy(), "norm").pvalue > 1e-3
    assert abs(scores.mean().item()) < 4 / math.sqrt(2000)


def test_score_of_the_linear_model_in_closed_form():
    """The gradient of softmax regression is Wᵀ(p − y)."""
    rows, net = examples(20, seed=2), model("linear").double()
    w, b = net[0][1].weight.detach(), net[0][1].bias.detach()
    x = rows.inputs.double().flatten(1)
    g = (functional.softmax(x @ w.T + b, 1) - functional.one_hot(rows.targets, 4)) @ w
    noise = torch.randn(20, *SHAPE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    expected = [-(g[i] @ noise[i].flatten() / (0.3 * g[i].norm())).item() for i in range(20)]
    gradients = input_gradients(net, rows.inputs.double(), rows.targets)
    assert noise_alignment(gradients, noise, 0.3).tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("net", MODELS)
def test_batched_gradients_are_those_of_single_rows(net):
    """In evaluation mode, whatever mode the model was left in; training mode would mix the rows of a batch."""
    rows, given = examples(11, seed=2), model(net).train()
    batched = input_gradients(given, rows.inputs, rows.targets, chunk=4)
    single = []
    for x, y in zip(rows.inputs, rows.targets, strict=True):
        leaf = x[None].clone().requires_grad_()
        functional.cross_entropy(model(net).eval()(leaf), y[None]).backward()
        single.append(leaf.grad)
    torch.testing.assert_close(batched, torch.cat(single), rtol=1e-4, atol=1e-6)
    assert given.training and all(p.grad is None for p in given.parameters())


def test_score_does_not_depend_on_scales():
    random = torch.Generator().manual_seed(0)
    gradients, noise = (torch.randn(6, *SHAPE, generator=random) for _ in range(2))
    scores = noise_alignment(gradients, noise, 0.5)
    torch.testing.assert_close(noise_alignment(1e-12 * gradients, noise, 0.5), scores, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(noise_alignment(gradients, 8 * noise, 4.0), scores)
    torch.testing.assert_close(noise_alignment(gradients, -noise, 0.5), -scores)


def test_rows_without_gradient_have_no_score():
    gradients = torch.ones(3, 2)
    gradients[1] = 0
    scores = noise_alignment(gradients, torch.ones(5, 3, 2), 1.0)
    assert scores.isnan().tolist() == [[False, True, False]] * 5
    assert scores[0, 0].item() == pytest.approx(-math.sqrt(2))


def test_every_separated_noise_scores_positive():
    """Poisons on blank images, fitted by a linear model without bias: the score's sign is the margin's, so all are > 0.

    With logits Wx and two classes, −g is along the difference of the rows of W that favours the label, and so is the
    margin at x = ξ.
    """
    random, m, d = torch.Generator().manual_seed(0), 30, 80
    noise, targets = torch.randn(m, d, generator=random), torch.arange(m) % 2
    net = nn.Linear(d, 2, bias=False)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    untrained = copy.deepcopy(net)
    for _ in range(100):
        optimizer.zero_grad()
        functional.cross_entropy(net(noise), targets).backward()
        optimizer.step()
    assert (net(noise).argmax(1) == targets).all()
    scores, before = (
        noise_alignment(input_gradients(n, torch.zeros(m, d), targets), noise, 1.0) for n in (net, untrained)
    )
    assert (scores > 0).all()
    assert torch.equal(before > 0, untrained(noise).argmax(1) == targets)


def test_planted_noise_is_remembered_and_found(digits):
    """Corrupted model and oracle on real digits: the score tells them apart."""
    scores = {}
    attack, ctx = Gaussian(fraction=0.15, epsilon=1.0), CraftContext(digits, Streams(0, CPU), lambda: None)
    poisoned = attack.craft(digits.train, ctx)
    full, mask = poisoned.apply(digits.train)
    for name, rows in {"corrupted": full, "oracle": full.rows(~mask)}.items():
        net = build_model(Mlp(hidden=(64,)), input_shape=(1, 16, 16), classes=10, seed=0)
        for _ in train_updates(net, rows, Recipe(epochs=30, batch_size=50), Streams(0, CPU)):
            pass
        gradients = input_gradients(net, poisoned.evidence["base_inputs"], poisoned.targets)
        scores[name] = noise_alignment(gradients, poisoned.evidence["noise"], 1.0).mean().item()
    standard_error = 1 / math.sqrt(60)
    assert scores["corrupted"] > 4 * standard_error
    assert abs(scores["oracle"]) < 4 * standard_error


# BadNets


@pytest.mark.parametrize(("size", "offset"), [(1, 0), (2, 1), (3, 0), (3, 5), (8, 0)])
@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_patch_changes_exactly_its_pixels(size, offset, value):
    attack = BadNets(size=size, offset=offset, value=value)
    stamped = attack.stamp(TRAIN.inputs, DATASET)
    inside = torch.zeros(8, 8, dtype=torch.bool)
    for row in range(8 - offset - size, 8 - offset):
        for column in range(8 - offset - size, 8 - offset):
            inside[row, column] = True
    assert inside.sum() == size * size
    changed = stamped != TRAIN.inputs
    assert not changed[..., ~inside].any()
    assert changed[..., inside].all()  # 3 size² values in each image
    pixels = DATASET.to_pixels(stamped)[..., inside]
    torch.testing.assert_close(pixels, torch.full_like(pixels, value), rtol=0, atol=1e-6)
    assert torch.equal(attack.stamp(stamped, DATASET), stamped)


@pytest.mark.parametrize("target", [0, 2])
def test_poisons_carry_the_patch_and_the_target(target):
    attack = BadNets(fraction=0.2, target=target)
    poisoned = craft(attack)
    assert (poisoned.targets == target).all()
    assert (TRAIN.targets[poisoned.rows] != target).all()
    assert torch.equal(poisoned.inputs, attack.stamp(TRAIN.inputs[poisoned.rows], DATASET))


@pytest.mark.parametrize("target", [0, 2])
def test_probes_leave_out_rows_of_the_target_class(target):
    attack = BadNets(target=target)
    probes = attack.probes(TRAIN, context())
    others = TRAIN.rows(TRAIN.targets != target)
    for probe in probes.values():
        assert (probe.examples.targets == target).all()
        assert torch.equal(probe.examples.inputs, attack.stamp(others.inputs, DATASET))
    assert torch.equal(probes["triggered"].true, others.targets)
    assert not (probes["triggered"].true == target).any()


@pytest.mark.parametrize(("size", "offset"), [(9, 0), (8, 1), (1, 8)])
def test_a_patch_beyond_the_image_is_refused(size, offset):
    with pytest.raises(InputError, match=f"size {size} with offset {offset} does not fit"):
        craft(BadNets(size=size, offset=offset))


def test_a_target_that_is_no_class_is_refused():
    with pytest.raises(InputError, match="target must be a class below 4 for tiny, but got 4"):
        BadNets(target=4).choose_rows(TRAIN, context())


def test_too_few_rows_of_other_classes_are_refused():
    mostly = Examples(TRAIN.inputs, torch.zeros_like(TRAIN.targets), TRAIN.ids)
    mostly.targets[:5] = 1
    with pytest.raises(InputError, match="asks for 6 poisons, but only 5 rows"):
        craft(BadNets(fraction=0.1), mostly)
    assert sorted(craft(BadNets(fraction=5 / 60), mostly).rows.tolist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("settings", [dict(size=0), dict(value=1.5), dict(target=-1), dict(offset=-1)], ids=str)
def test_bad_patches_are_named(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        BadNets(**settings)
