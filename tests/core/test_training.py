"""The training loop against plain PyTorch, and its batches, schedules and augmentation."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.contracts.tiny import CPU, MODELS, RECIPE, RETAIN, examples, model, same_state
from unlearn_core.checks import InputError
from unlearn_core.seeding import Streams, generator
from unlearn_core.training import (
    Recipe,
    batches,
    descend,
    evaluating,
    predict,
    rows_of,
    schedule_factor,
    split_rows,
    steps_per_epoch,
    train_updates,
)
from unlearn_core.training.augment import augment, shift

RNG = Streams(3, CPU)


def train(net, data=RETAIN, recipe=RECIPE, seed=3):
    for _ in train_updates(net, data, recipe, Streams(seed, CPU)):
        pass
    return net


RECIPES = {
    "plain": RECIPE,
    "warm and smooth": replace(RECIPE, warmup=0.4, label_smoothing=0.1, nesterov=True),
    "steps": replace(RECIPE, schedule="steps", milestones=(0.3, 0.6), momentum=0.0),
    "adamw": replace(RECIPE, optimizer="adamw", lr=1e-3, schedule="linear", weight_decay=0.1),
    "remainder": replace(RECIPE, batch_size=20, schedule="constant"),  # 41 = 20 + 21
}


def lr_by_hand(recipe, step, total):
    progress = step / total
    if progress < recipe.warmup:
        return recipe.lr * max(1e-3, progress / recipe.warmup)
    done = (progress - recipe.warmup) / (1 - recipe.warmup)
    return (
        recipe.lr
        * {
            "cosine": 0.5 * (1 + math.cos(math.pi * done)),
            "linear": 1 - done,
            "constant": 1.0,
            "steps": 1.0 if done < 0.3 else 0.1 if done < 0.6 else 0.01,
        }[recipe.schedule]
    )


def plain_loop(net, recipe, seed=3):
    """Nothing but torch."""
    net.train()
    if recipe.optimizer == "adamw":
        settings = dict(betas=(recipe.momentum, 0.999), weight_decay=recipe.weight_decay, fused=True)
        optimizer = torch.optim.AdamW(net.parameters(), **settings)
    else:
        settings = dict(momentum=recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov)
        optimizer = torch.optim.SGD(net.parameters(), **settings, fused=True)
    sizes = [20, 21] if recipe.batch_size == 20 else [16, 16, 9]
    step = itertools.count()
    for epoch in range(recipe.epochs):
        order = torch.randperm(41, generator=generator(seed, "train", epoch))
        for rows in order.split(sizes):
            for group in optimizer.param_groups:
                group["lr"] = lr_by_hand(recipe, next(step), recipe.epochs * len(sizes))
            optimizer.zero_grad()
            loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
            loss(net(RETAIN.inputs[rows]), RETAIN.targets[rows]).backward()
            optimizer.step()
    return net


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("net", MODELS)
def test_training_is_a_plain_loop_bit_for_bit(net, kind):
    assert same_state(train(model(net), recipe=RECIPES[kind]), plain_loop(model(net), RECIPES[kind]))


@pytest.mark.parametrize("net", MODELS)
def test_same_seed_same_bits_other_seed_other_values(net):
    first, again, other = (train(model(net), seed=s) for s in (1, 1, 2))
    assert same_state(first, again)
    assert not same_state(first, other)


def test_label_smoothing_by_hand():
    """Target 1 − s + s/C on the label, s/C elsewhere."""
    logits, targets = torch.randn(6, 4, generator=RNG("logits")), torch.arange(6) % 4
    soft = 0.9 * functional.one_hot(targets, 4) + 0.1 / 4
    expected = -(soft * functional.log_softmax(logits, 1)).sum(1).mean()
    torch.testing.assert_close(functional.cross_entropy(logits, targets, label_smoothing=0.1), expected)


def test_descend_on_a_quadratic():
    """θ_t = a + (I − η H)^t (θ_0 − a), announced before each step."""
    h, a, eta = torch.tensor([[2.0, 0.3], [0.3, 1.0]]).double(), torch.tensor([1.0, -2.0]).double(), 0.1
    theta = nn.Parameter(torch.zeros(2).double())
    optimizer = torch.optim.SGD([theta], lr=eta)
    loss = lambda batch: 0.5 * (theta - a) @ h @ (theta - a)  # noqa: E731
    for step, update in enumerate(descend(range(20), loss, optimizer, phase="p", size=lambda batch: 7)):
        assert update == ("p", 7)
        expected = a + torch.linalg.matrix_power(torch.eye(2).double() - eta * h, step) @ -a
        torch.testing.assert_close(theta.data, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 2, 5, 16, 17, 31, 32, 33])
@pytest.mark.parametrize("size", [1, 2, 16, 100])
def test_each_epoch_covers_each_row_once(rows, size):
    data = examples(rows)
    for epoch in range(3):
        parts = list(batches(data, size, RNG, "x", epochs=[epoch]))
        assert len(parts) == steps_per_epoch(rows, size)
        seen = torch.cat([inputs for inputs, _ in parts])
        order = torch.randperm(rows, generator=RNG("x", epoch))
        assert torch.equal(seen, data.inputs[order])
        assert torch.equal(torch.cat([targets for _, targets in parts]), data.targets[order])
        assert sorted(order.tolist()) == list(range(rows))


def test_a_remainder_of_one_row_joins_the_batch_before():
    sizes = lambda rows, size: [len(part) for part in split_rows(torch.arange(rows), size)]  # noqa: E731
    assert sizes(33, 16) == [16, 17]
    assert sizes(34, 16) == [16, 16, 2]
    assert sizes(17, 16) == [17]
    assert sizes(1, 16) == [1]
    assert sizes(3, 1) == [1, 1, 1]
    assert torch.equal(torch.cat(split_rows(torch.arange(33), 16)), torch.arange(33))


def test_an_epochs_order_depends_on_seed_label_and_epoch_alone():
    def order(seed, label, epochs):
        return torch.cat([x for x, _ in batches(RETAIN, 16, Streams(seed, CPU), label, epochs=epochs)])

    assert torch.equal(order(1, "a", [2]), order(1, "a", range(3))[-41:])
    assert torch.equal(order(1, "a", itertools.islice(itertools.count(), 3)), order(1, "a", range(3)))
    others = [order(1, "a", [0]), order(1, "a", [1]), order(1, "b", [0]), order(2, "a", [0])]
    assert not any(torch.equal(x, y) for x, y in itertools.combinations(others, 2))


def test_an_empty_set_gives_no_batches():
    nothing = RETAIN.rows(torch.arange(0))
    assert list(batches(nothing, 16, RNG, "x", epochs=itertools.count())) == []
    assert steps_per_epoch(0, 16) == 0


@pytest.mark.parametrize(
    ("name", "progress", "settings", "factor"),
    [
        ("constant", 0.7, {}, 1.0),
        ("cosine", 0.0, {}, 1.0),
        ("cosine", 1 / 3, {}, 0.75),
        ("cosine", 0.5, {}, 0.5),
        ("cosine", 1.0, {}, 0.0),
        ("linear", 0.25, {}, 0.75),
        ("linear", 1.0, {}, 0.0),
        ("linear", 0.6, dict(warmup=0.2), 0.5),
        ("steps", 0.49, dict(milestones=(0.5, 0.75)), 1.0),
        ("steps", 0.5, dict(milestones=(0.5, 0.75)), 0.1),
        ("steps", 0.9, dict(milestones=(0.5, 0.75)), 0.01),
        ("cosine", 0.0, dict(warmup=0.2), 1e-3),
        ("cosine", 0.05, dict(warmup=0.2), 0.25),
        ("cosine", 0.2, dict(warmup=0.2), 1.0),
        ("constant", 0.1999, dict(warmup=0.2), 0.9995),
    ],
)
def test_schedules_by_hand(name, progress, settings, factor):
    assert schedule_factor(name, progress, **settings) == pytest.approx(factor, abs=1e-12)


@pytest.mark.parametrize("name", ["constant", "cosine", "linear", "steps"])
@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_a_factor_is_a_share_of_the_peak(name, warmup):
    factors = [schedule_factor(name, i / 1000, warmup=warmup, milestones=(0.5,)) for i in range(1001)]
    assert all(0 <= f <= 1 for f in factors)
    assert factors[0] > 0
    after = factors[int(1000 * warmup) :]
    assert after == sorted(after, reverse=True)


@pytest.mark.parametrize(
    "settings",
    [dict(lr=0.0), dict(epochs=0), dict(momentum=1.0), dict(schedule="cosin"), dict(optimizer="adam"),
     dict(augmentation="rotate"), dict(warmup=1.0), dict(label_smoothing=1.0), dict(weight_decay=-1.0)],
    ids=str,
)  # fmt: skip
def test_bad_recipes_are_named(settings):
    with pytest.raises(InputError, match=next(iter(settings))):
        Recipe(**settings)


@pytest.mark.parametrize("net", MODELS)
def test_prediction_is_in_evaluation_mode_and_leaves_no_trace(net):
    given = model(net).train()
    logits = predict(given, RETAIN.inputs, chunk=7)
    torch.testing.assert_close(logits, model(net).eval()(RETAIN.inputs).detach())
    assert same_state(given, model(net))
    assert given.training and not logits.requires_grad


def test_evaluating_restores_each_modules_own_mode():
    net = model("convnet").train()
    list(net.modules())[3].eval()
    modes = [m.training for m in net.modules()]
    with evaluating(net):
        assert not any(m.training for m in net.modules())
    assert [m.training for m in net.modules()] == modes
    with pytest.raises(RuntimeError, match="channels"):
        predict(net, RETAIN.inputs[:, :1, :2])
    assert [m.training for m in net.modules()] == modes


IMAGES = torch.arange(5 * 2 * 9 * 9, dtype=torch.float32).view(5, 2, 9, 9)


def test_flips_mirror_some_images_whole():
    given = IMAGES.repeat(20, 1, 1, 1)
    pairs = list(zip(augment(given, "flip", RNG("augment")), given, strict=True))
    mirrored = [torch.equal(out, image.flip(-1)) for out, image in pairs]
    same = [torch.equal(out, image) for out, image in pairs]
    assert all(a != b for a, b in zip(mirrored, same, strict=True))
    assert 30 <= sum(mirrored) <= 70  # of 100, probability 1/2
    assert torch.equal(augment(IMAGES, "none", RNG("augment")), IMAGES)


@pytest.mark.parametrize("kind", ["flip", "crop", "flip_crop"])
def test_augmentation_is_seeded_and_keeps_shape(kind):
    first, again, other = (augment(IMAGES, kind, generator(s, "x")) for s in (1, 1, 5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == IMAGES.shape


def test_crops_are_shifts_and_no_mirror_images():
    made = augment(IMAGES, "crop", RNG("augment"))
    assert torch.equal(made, shift(IMAGES, 4, RNG("augment")))
    assert not torch.equal(made, IMAGES)


def test_shift_by_nothing_is_the_identity():
    assert torch.equal(shift(IMAGES, 0, RNG("shift")), IMAGES)


def test_shifts_are_crops_of_the_mirror_padded_image():
    """Each output is one of the (2 reach + 1)² windows, and all occur."""
    reach, given = 1, IMAGES[:1].repeat(200, 1, 1, 1)
    padded = functional.pad(IMAGES[:1], (reach,) * 4, mode="reflect")[0]
    windows = [padded[:, top : top + 9, left : left + 9] for top in range(3) for left in range(3)]
    found = [
        next(i for i, window in enumerate(windows) if torch.equal(window, out)) for out in shift(given, reach, RNG("s"))
    ]
    assert set(found) == set(range(9))


def test_an_augmented_training_differs_but_repeats():
    recipe = replace(RECIPE, augmentation="flip_crop")
    first, again, without = (train(model("convnet"), recipe=r) for r in (recipe, recipe, RECIPE))
    assert same_state(first, again)
    assert not same_state(first, without)


def test_updates_are_announced_with_their_rows():
    sizes = [update for update in train_updates(model(), RETAIN, RECIPE, RNG)]
    assert [tuple(update) for update in sizes] == [("train", n) for n in (16, 16, 9)] * 2
    assert rows_of((RETAIN.inputs, RETAIN.targets)) == 41
