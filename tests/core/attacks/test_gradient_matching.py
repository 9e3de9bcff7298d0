"""Gradient matching against double backward, a general image warp, and victims trained afresh."""

import math
import warnings
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import affine_grid, cross_entropy, grid_sample

from tests.contracts.tiny import CPU, model
from tests.core.attacks.scenes import DATA, context, craft, images
from unlearn_core.attacks import Bundle, Gaussian, GradientMatching
from unlearn_core.attacks.cross_gradients import directional_input_gradient, summed_gradient
from unlearn_core.attacks.gradient_matching import warn_of_views
from unlearn_core.attacks.gradient_matching_search import (
    Ball,
    Search,
    brew,
    inner,
    mismatch,
    seen_mismatch,
    steering,
    unit,
)
from unlearn_core.attacks.gradient_matching_views import draw_views, interpolation
from unlearn_core.checks import InputError
from unlearn_core.models import Linear
from unlearn_core.scenarios.scenario import Scenario, build_evaluator, clean_rows
from unlearn_core.seeding import Streams
from unlearn_core.training import Recipe
from unlearn_core.types import Dataset, Examples

QUICK = dict(fraction=0.2, restarts=2, steps=6, flip=True, shift=1.0)
THREATS = ["single_class", "third_party", "random_subset", "self_betrayal"]


def random(seed=0):
    return torch.Generator().manual_seed(seed)


def clean():
    return model("convnet")


def poisoned(seed=0, **settings):
    return craft(GradientMatching(**QUICK | settings), seed, clean_model=clean)


def aims(attack, seed=0):
    """The targets of the only draw."""
    (goal,) = attack.goals(context(seed))
    return goal.targets


def rows_of(net, count=12, dtype=torch.float64):
    """A model, some rows, and the unit gradient of two others under wrong labels."""
    net = net.to(dtype).eval()
    x, y = DATA.train.inputs[:count].to(dtype), DATA.train.targets[:count]
    aim = DATA.validation.rows(torch.tensor([0, 4]))
    return net, x, y, unit(summed_gradient(net, aim.inputs.to(dtype), (aim.targets + 1) % 4))


def double_backward(net, x, y, wanted, through=lambda x: x):
    """B and its gradient by differentiating the gradient."""
    leaf = x.clone().requires_grad_()
    loss = cross_entropy(net(through(leaf)), y)
    gradients = torch.autograd.grad(loss, list(net.parameters()), create_graph=True)
    product = sum((g * wanted[k]).sum() for (k, _), g in zip(net.named_parameters(), gradients, strict=True))
    value = 1 - product / torch.sqrt(sum(g.square().sum() for g in gradients))
    return float(value.detach()), torch.autograd.grad(value, leaf)[0]


@pytest.mark.parametrize("name", ["linear", "mlp", "convnet", "resnet9"])
def test_two_passes_are_the_double_backward(name):
    net, x, y, wanted = rows_of(model(name))
    names, parameters = zip(*net.named_parameters(), strict=True)
    made = torch.autograd.grad(cross_entropy(net(x), y, reduction="sum"), parameters)
    value, direction = steering(dict(zip(names, made, strict=True)), wanted)
    gradient = directional_input_gradient(net, x, y, direction)
    expected, slope = double_backward(net, x, y, wanted)
    assert value == pytest.approx(expected, abs=1e-12)
    assert (gradient - slope).abs().max() < 1e-10 * slope.abs().max()
    whole, found = mismatch(net, x, y, wanted)  # whose first pass takes the loss in float32
    assert whole == pytest.approx(expected, abs=1e-6)
    assert (found - slope).abs().max() < 1e-5 * slope.abs().max()


def test_signs_of_two_passes_are_those_of_the_double_backward_in_float32():
    net, x, y, wanted = rows_of(model("convnet"), 60, torch.float32)
    gradient, slope = mismatch(net, x, y, wanted)[1], double_backward(net, x, y, wanted)[1]
    assert (gradient.sign() == slope.sign()).float().mean() > 0.999


def test_the_gradient_goes_back_through_the_views():
    net, x, y, wanted = rows_of(clean())
    search = Search(steps=1, lr=0.1, flip=True, shift=2.0)
    views = draw_views(x, flip=True, shift=2.0, random=random(3))
    value, gradient = seen_mismatch(net, x, y, wanted, search=search, random=random(3))
    expected, slope = double_backward(net, x, y, wanted, views.of)
    assert value == pytest.approx(expected, abs=1e-6)
    assert (gradient - slope).abs().max() < 1e-5 * slope.abs().max()


@pytest.mark.parametrize("chunk", [1, 5, 12])
def test_objective_and_gradient_do_not_depend_on_the_chunk(chunk):
    net, x, y, wanted = rows_of(clean())
    value, gradient = mismatch(net, x, y, wanted, chunk=chunk)
    whole, slope = mismatch(net, x, y, wanted, chunk=100)
    assert value == pytest.approx(whole, abs=1e-12)
    assert torch.allclose(gradient, slope, rtol=0, atol=1e-12)


def test_the_objective_is_zero_where_the_poison_is_the_target_and_two_for_the_opposite():
    net, x, y, _ = rows_of(clean(), 1)
    gradient = unit(summed_gradient(net, x, y))
    assert inner(gradient, gradient) == pytest.approx(1, abs=1e-12)
    value, slope = mismatch(net, x, y, gradient)
    assert value == pytest.approx(0, abs=1e-12)
    assert slope.abs().max() < 1e-8
    assert mismatch(net, x, y, {k: -v for k, v in gradient.items()})[0] == pytest.approx(2, abs=1e-12)


def test_a_view_without_flip_and_shift_is_the_image():
    views = draw_views(DATA.train.inputs, flip=False, shift=0.0, random=random())
    assert torch.equal(views.of(DATA.train.inputs), DATA.train.inputs)


def test_whole_moves_shift_pixels_and_bring_in_zeros():
    line = torch.arange(1.0, 6.0)
    moved = interpolation(5, torch.tensor([0.0, 2.0, -1.0, 0.25])) @ line
    assert moved[0].tolist() == [1, 2, 3, 4, 5]
    assert moved[1].tolist() == [3, 4, 5, 0, 0]
    assert moved[2].tolist() == [0, 1, 2, 3, 4]
    assert moved[3].tolist() == [1.25, 2.25, 3.25, 4.25, 3.75]


def test_views_are_a_bilinear_warp_with_aligned_corners():
    x = torch.randn(6, 3, 8, 8, generator=random(), dtype=torch.double)
    views = draw_views(x, flip=True, shift=3.0, random=random(1))
    moves = 3.0 * (2 * torch.rand(2, 6, generator=random(1)).double() - 1)
    mirrored = views.horizontal.argmax(2)[:, 0] > views.horizontal.argmax(2)[:, -1]
    assert 0 < mirrored.sum() < 6
    turned = torch.where(mirrored, -1.0, 1.0).double()
    down, right = 2 * moves / 7  # of a grid from -1 to 1 over 8 pixels
    zero, one = torch.zeros_like(turned), torch.ones_like(turned)
    maps = torch.stack([torch.stack([turned, zero, turned * right]), torch.stack([zero, one, down])]).permute(2, 0, 1)
    grid = affine_grid(maps, x.shape, align_corners=True)
    warped = grid_sample(x, grid, padding_mode="zeros", align_corners=True)
    assert torch.allclose(views.of(x), warped, atol=1e-6)


def test_pulling_back_is_the_adjoint_of_viewing():
    x, g = (torch.randn(5, 3, 8, 8, generator=random(s), dtype=torch.double) for s in (0, 1))
    views = draw_views(x, flip=True, shift=2.5, random=random(2))
    assert float((views.of(x) * g).sum()) == pytest.approx(float((x * views.pull_back(g)).sum()), abs=1e-10)


@pytest.mark.parametrize("eps, space, pixels", [(16.0, "pixel255", 16 / 255), (0.1, "pixel01", 0.1)])
@pytest.mark.parametrize("threat", THREATS)
def test_poisons_stay_in_ball_and_box_and_keep_their_labels(eps, space, pixels, threat):
    made = poisoned(eps=eps, space=space, threat=threat)
    base = DATA.train.rows(made.rows)
    values = DATA.to_pixels(made.inputs)
    change = (values - DATA.to_pixels(base.inputs)).abs()
    assert change.max() <= pixels + 1e-6
    assert change.max() > 0.9 * pixels, "the ball is not used"
    assert values.min() >= -1e-6 and values.max() <= 1 + 1e-6
    assert torch.equal(made.targets, base.targets)
    assert len(made.rows.unique()) == len(made.rows) == 12


def test_a_normalized_ball_has_the_same_radius_in_every_channel():
    made = poisoned(eps=0.2, space="normalized")
    change = (made.inputs - DATA.train.inputs[made.rows]).abs().amax(dim=(0, 2, 3))
    assert change.max() <= 0.2 + 1e-5
    assert change.min() > 0.19


@pytest.mark.parametrize("seed", range(6))
def test_the_threat_says_whose_rows_are_poisoned(seed):
    for threat in THREATS:
        attack = GradientMatching(**QUICK, threat=threat)
        source, intended, _ = attack.classes(context(seed))
        found = set(DATA.train.targets[attack.choose_rows(DATA.train, context(seed))].tolist())
        assert source != intended
        if threat == "random_subset":
            assert len(found) > 1
        else:
            expected = {"single_class": {intended}, "self_betrayal": {source}}
            others = [{label} for label in set(range(4)) - {source, intended}]
            assert found in ([expected[threat]] if threat in expected else others)


def test_given_classes_are_kept():
    attack = GradientMatching(source=2, intended=1)
    assert attack.classes(context()) == (2, 1, 1)
    assert {GradientMatching(source=2).classes(context(s)).intended for s in range(20)} == {0, 1, 3}
    assert {GradientMatching(intended=2).classes(context(s)).source for s in range(20)} == {0, 1, 3}


def test_targets_are_validation_rows_of_the_source_class_under_the_intended_one():
    attack = GradientMatching(source=2, intended=1, targets=3)
    few, many = (aims(replace(attack, targets=count), 5).ids for count in (2, 3))
    assert torch.equal(few, many[:2])
    probe = attack.probes(DATA.test, context(5))["targeted"]
    held_out = {int(row): (x, int(y)) for row, x, y in zip(*vars_of(DATA.validation), strict=True)}
    assert len(set(probe.examples.ids.tolist())) == 3
    for row, x in zip(probe.examples.ids.tolist(), probe.examples.inputs, strict=True):
        assert torch.equal(held_out[row][0], x) and held_out[row][1] == 2
    assert probe.examples.targets.tolist() == [1, 1, 1] and probe.true.tolist() == [2, 2, 2]
    assert {int(aims(GradientMatching(source=2), s).ids) for s in range(30)} > set(many.tolist())


def vars_of(rows):
    return rows.ids, rows.inputs, rows.targets


def test_tuning_and_reporting_look_at_the_same_targets():
    attack = GradientMatching(targets=2)
    tuned, reported = (attack.probes(rows, context())["targeted"].examples for rows in (DATA.validation, DATA.test))
    assert torch.equal(tuned.inputs, reported.inputs) and torch.equal(tuned.ids, reported.ids)


def test_draws_have_goals_and_poisons_of_their_own_and_keep_the_first():
    attack = GradientMatching(**QUICK | dict(draws=4))
    one, four = (replace(attack, draws=count).goals(context(3)) for count in (1, 4))
    assert torch.equal(one[0].targets.inputs, four[0].targets.inputs) and one[0].classes == four[0].classes
    ids = [int(goal.targets.ids) for goal in four]
    assert len(set(ids)) == 4 and len({goal.classes for goal in four}) > 1
    made = poisoned(3, draws=4)
    assert len(made.rows.unique()) == len(made.rows) == 12
    assert DATA.train.targets[made.rows].tolist() == [goal.classes.base for goal in four for _ in range(3)]
    probe = attack.probes(DATA.test, context(3))
    assert probe["targeted"].examples.ids.tolist() == made.evidence["target_ids"].tolist() == ids
    assert probe["targeted"].examples.targets.tolist() == [goal.classes.intended for goal in four]
    assert probe["targeted"].true.tolist() == [goal.classes.source for goal in four]
    assert set(probe["unseen"].examples.targets.tolist()) == {goal.classes.base for goal in four}


def test_each_draw_is_matched_with_its_own_target():
    made, net = poisoned(3, draws=2, restarts=2, flip=False, shift=0.0), clean()
    goals, ends = GradientMatching(**QUICK | dict(draws=2)).goals(context(3)), []
    for goal, part in zip(goals, torch.arange(12).split(6), strict=True):
        wanted = unit(summed_gradient(net, goal.targets.inputs, goal.targets.targets))
        ends.append(mismatch(net, made.inputs[part], made.targets[part], wanted)[0])
    log = made.evidence["objectives"].view(2, 2, -1)[:, :, -1]
    assert ends == pytest.approx(log.min(1).values.tolist(), abs=1e-6)
    assert float(made.evidence["array.matching"][1]) == pytest.approx(sum(ends) / 2, abs=1e-6)


def test_the_objective_falls_and_the_best_restart_is_kept():
    settings = dict(restarts=4, steps=12, flip=False, shift=0.0, source=0, intended=1)
    made = poisoned(**settings)
    log = made.evidence["objectives"]
    assert log.shape == (4, 13) and log.min() >= 0 and log.max() <= 2
    assert len(log[:, -1].unique()) == 4
    best = int(log[:, -1].argmin())
    assert made.evidence["array.matching"].tolist() == [float(log[best, 0]), float(log[best, -1])]
    assert log[best, -1] < log[best, 0] - 0.1
    attack = GradientMatching(**QUICK | settings)
    net, aimed = clean(), aims(attack)
    wanted = unit(summed_gradient(net, aimed.inputs, aimed.targets))
    assert made.evidence["target_ids"].tolist() == aimed.ids.tolist()
    assert mismatch(net, made.inputs, made.targets, wanted)[0] == pytest.approx(float(log[best, -1]), abs=1e-6)


def test_same_seed_same_poison_and_more_restarts_never_do_worse():
    first, again, more = poisoned(), poisoned(), poisoned(restarts=3)
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.evidence["objectives"], again.evidence["objectives"])
    assert torch.equal(more.evidence["objectives"][:2], first.evidence["objectives"])
    assert more.evidence["array.matching"][1] <= first.evidence["array.matching"][1]


def test_global_clean_model_is_left_alone():
    net = clean().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    craft(GradientMatching(**QUICK), clean_model=lambda: net)
    assert net.training and all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters())


def test_steps_fall_at_the_milestones_of_the_paper():
    search = Search(steps=250, lr=0.1, flip=False, shift=0.0)
    lrs = [search.lr_at(step) for step in range(250)]
    changes = [step for step in range(1, 250) if lrs[step] != lrs[step - 1]]
    assert changes == [93, 156, 218]
    assert [lrs[0], lrs[-1]] == pytest.approx([0.1, 1e-4])


def test_tables_need_no_pixels():
    flat = {name: replace(getattr(DATA, name), inputs=getattr(DATA, name).inputs.flatten(1)) for name in PARTS}
    data = replace(DATA, **flat, mean=(), std=())
    net = Linear().build(input_shape=(192,), classes=4)
    settings = dict(fraction=0.2, restarts=1, steps=5, eps=0.3, space="normalized")
    made = craft(GradientMatching(**settings), data=data, clean_model=lambda: net)
    assert (made.inputs - data.train.inputs[made.rows]).abs().max() <= 0.3 + 1e-6
    with pytest.raises(InputError, match="finds no images here: set space to normalized"):
        craft(GradientMatching(fraction=0.2), data=data)


PARTS = ("train", "validation", "test")


def hazy(rows, seed):
    """Grey noise around four faint patterns."""
    patterns = torch.randn(4, 3, 16, 16, generator=random(99))
    targets = torch.arange(rows) % 4
    noise = torch.randn(rows, 3, 16, 16, generator=random(seed))
    pixels = (0.5 + 0.02 * patterns[targets] + 0.15 * noise).clamp(0, 1)
    return Examples((pixels - 0.5) / 0.15, targets, torch.arange(rows))


HAZY = Dataset("hazy", hazy(600, 0), hazy(200, 1), hazy(200, 2), 4, (0.5,) * 3, (0.15,) * 3, "hazy")
RECIPE = Recipe(epochs=8, batch_size=64, lr=0.02)


@pytest.mark.slow
def test_fresh_victims_take_the_target_for_the_intended_class():
    """12 poisons of 600 rows; as many changes of the same size, but in random directions, do nothing."""
    attack = GradientMatching(fraction=0.02, restarts=1, steps=30)
    hits = {"corrupted": 0.0, "oracle": 0.0, "noise": 0.0}
    for seed in range(5):
        scene = Scenario(HAZY, Linear(), RECIPE, attack, seed, CPU)
        made = attack.craft(HAZY.train, scene.context())
        base = HAZY.train.inputs[made.rows]
        signs = torch.randn(base.shape, generator=random(seed)).sign()
        noise = replace(made, inputs=base + 16 / 255 / 0.15 * signs)
        evaluator = build_evaluator(scene, made, HAZY.test, {})
        sets = {"corrupted": made.apply(HAZY.train)[0], "oracle": clean_rows(made, HAZY.train)}
        for name, rows in (sets | {"noise": noise.apply(HAZY.train)[0]}).items():
            metrics = evaluator(scene.train(rows).model)
            hits[name] += metrics["target_hits"] / 5
            assert metrics["target_base_rate"] < 0.1 and metrics["test_accuracy"] > 0.85
    assert hits["corrupted"] >= 0.8
    assert hits["oracle"] <= 0.2 and hits["noise"] <= 0.2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(eps=16), "eps 16 is given without a space; set space to one of pixel01, pixel255, normalized"),
        (dict(space="pixel01"), "space 'pixel01' is given without eps"),
        (dict(eps=16, space="pixel01"), r"eps must lie in \[0, 1\] and not be 0 in pixel01, but got 16"),
        (dict(eps=0.06, space="pixel255"), r"eps must lie in \[1, 255\] and not be 0 in pixel255, but got 0.06"),
        (dict(eps=16, space="normalized"), r"eps must lie in \[0, 10\]"),
        (dict(eps=0, space="pixel01"), "not be 0"),
        (dict(eps=math.nan, space="pixel01"), "eps must lie in"),
        (dict(eps=8, space="pixels"), "space 'pixels' is unknown; did you mean 'pixel01' or 'pixel255'"),
        (dict(source=1, intended=1), "source and intended must be different classes, but both are 1"),
        (dict(source=-1), "source must be zero or a positive"),
        (dict(threat="single"), "threat 'single' is unknown; did you mean 'single_class'"),
        (dict(draws=0), "draws must lie in"),
        (dict(targets=0), "targets must lie in"),
        (dict(restarts=0), "restarts must lie in"),
        (dict(steps=0), "steps must lie in"),
        (dict(lr=0), "lr must be a positive number"),
        (dict(shift=-1), "shift must be zero or a positive number"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        GradientMatching(**settings)


def test_default_eps_is_written_out():
    assert (GradientMatching().eps, GradientMatching().space) == (16.0, "pixel255")
    assert GradientMatching() == GradientMatching(eps=16, space="pixel255")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            dict(fraction=0.3, intended=1),
            r"asks for 18 poisons, but only 15 rows can be poisons .* \(class 1\); lower it",
        ),
        (dict(source=4), "source must be a class below 4 for tiny, but got 4"),
        (dict(intended=7), "intended must be a class below 4 for tiny, but got 7"),
        (dict(targets=7), "targets asks for 7 images, but there are only 6 validation rows of class"),
        (dict(source=1, intended=2, draws=7), "but there are only 0 validation rows of class 1 left; lower it"),
        (dict(fraction=0.05, draws=4), "fraction gives 3 poisons for 4 draws; raise it, or lower draws"),
    ],
)
def test_what_the_data_cannot_give_is_refused_before_anything_is_trained(settings, message):
    with pytest.raises(InputError, match=message):
        GradientMatching(**QUICK | settings).choose_rows(DATA.train, context())


def test_third_parties_need_a_third_class():
    two = replace(DATA, classes=2, validation=images(24, 1).rows(torch.arange(24) % 4 < 2))
    with pytest.raises(InputError, match="third_party needs three classes, but tiny has 2"):
        GradientMatching(threat="third_party").choose_rows(DATA.train, context(data=two))


def test_targets_among_the_training_rows_are_refused():
    attack = GradientMatching(**QUICK)
    (row,) = aims(attack).ids.tolist()
    inputs = DATA.train.inputs.clone()
    inputs[7] = DATA.validation.inputs[DATA.validation.ids == row]
    with pytest.raises(InputError, match=f"target {row} of the validation rows is a training row, too"):
        attack.choose_rows(replace(DATA.train, inputs=inputs), context())


def test_text_is_refused():
    tokens = replace(DATA.train, inputs=DATA.train.inputs.long())
    with pytest.raises(InputError, match="attack gradient_matching needs inputs of numbers, not token ids as in tiny"):
        GradientMatching().choose_rows(tokens, context())


def test_a_target_that_is_already_taken_for_the_class_does_not_break_the_search():
    """Its gradient is 0, which has no direction."""
    net, x, y, wanted = rows_of(clean(), 4, torch.float32)
    none = unit({name: torch.zeros_like(part) for name, part in wanted.items()})
    found = brew(net, Ball(x, torch.tensor(0.1), DATA), y, none, search=Search(2, 0.1, False, 0), rng=Streams(0, CPU))
    assert found.objectives == [1.0, 1.0, 1.0] and found.inputs.isfinite().all()


SEEN = {"none": {}, "flip": {"flip": True}, "crop": {"shift": 4}, "flip_crop": {"flip": True, "shift": 4}}


@pytest.mark.parametrize("augmentation", SEEN)
@pytest.mark.parametrize("views", SEEN)
def test_views_are_compared_with_what_victims_see(views, augmentation):
    """Alone and as a part; the settings that the warning asks for are those that do not warn."""
    attack = GradientMatching(**SEEN[views])
    for whole in (attack, Bundle(parts=(Gaussian(), attack))):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warn_of_views(whole, augmentation)
        assert len(caught) == (views != augmentation)
    if caught:
        wanted = SEEN[augmentation]
        fix = f"set flip to {'true' if 'flip' in wanted else 'false'} and shift to {wanted.get('shift', 0)}"
        assert str(caught[0].message).endswith(fix)
