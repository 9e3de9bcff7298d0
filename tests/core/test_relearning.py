"""Relearning against the same training written out by hand, its cap against FLOPs counted, and its invariants."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from tests.contracts.tiny import CPU, FORGET, MODELS, RECIPE, data_for, examples, model, same_state
from unlearn_core.metrics import compute_all
from unlearn_core.scenarios.relearning import COST_SHARE, MOST_PASSES, Relearning, affordable_passes, forget_loss
from unlearn_core.seeding import Streams
from unlearn_core.training import Recipe, train_updates

RNG = Streams(3, CPU)


def relearning(*, forget=FORGET, recipe=RECIPE, target=0.0, passes=2.0):
    return Relearning(forget, recipe, RNG, target, passes)


def by_hand(net, forget, passes):
    """Plain SGD with momentum 0.9 and lr 0.005 = 0.05 (1 - 0.9), in evaluation mode; losses after each batch of 3."""
    net = copy.deepcopy(net).eval()
    velocity = {name: torch.zeros_like(p) for name, p in net.named_parameters()}
    losses = [functional.cross_entropy(net(forget.inputs), forget.targets).item()]
    for epoch in range(passes):
        for rows in torch.randperm(9, generator=RNG("relearn", epoch)).split(3):
            net.zero_grad()
            functional.cross_entropy(net(forget.inputs[rows]), forget.targets[rows]).backward()
            with torch.no_grad():
                for name, p in net.named_parameters():
                    velocity[name] = 0.9 * velocity[name] + p.grad
                    p -= 0.005 * velocity[name]
            losses.append(functional.cross_entropy(net(forget.inputs), forget.targets).item())
    return losses


@pytest.mark.parametrize("net", MODELS)
def test_losses_are_those_of_training_by_hand(net):
    """Nine rows: batches of ceil(9 / 4) = 3, so three checks per pass."""
    given = model(net).train()
    forget = data_for(given).forget
    arrays = relearning(forget=forget)(given)
    expected = by_hand(given, forget, passes=2)
    np.testing.assert_allclose(arrays["relearn_losses"], expected, rtol=1e-4)
    np.testing.assert_allclose(arrays["relearn_at"], np.arange(7) / 3)
    assert same_state(given, model(net)) and given.training, "the model measured was changed"


def test_adamw_keeps_the_recipes_step_size():
    """A step of Adam is at first lr times the sign of the gradient, whatever the loss: no weight decay in it."""
    recipe = replace(RECIPE, optimizer="adamw", lr=0.003)
    net, first = model("linear"), relearning(recipe=recipe, passes=1 / 3)
    with torch.enable_grad():
        rows = torch.randperm(9, generator=RNG("relearn", 0))[:3]
        functional.cross_entropy(net(FORGET.inputs[rows]), FORGET.targets[rows]).backward()
    with torch.no_grad():
        for p in net.parameters():
            p -= 0.003 * p.grad.sign()
    assert first(model("linear"))["relearn_losses"][1] == pytest.approx(forget_loss(net, FORGET), rel=1e-4)


def test_it_repeats_and_ignores_the_mode():
    first, second = (relearning()(net) for net in (model("convnet").train(), model("convnet").eval()))
    assert torch.equal(first["relearn_losses"], second["relearn_losses"])


def test_it_ends_at_the_first_check_that_reaches_the_target():
    losses = relearning()(model())["relearn_losses"]
    assert losses[3] < losses[:3].min()
    arrays = relearning(target=float(losses[3]) + 1e-9)(model())
    assert torch.equal(arrays["relearn_losses"], losses[:4])
    values = compute_all({k: v.numpy() for k, v in arrays.items()} | {"relearn_target": losses[3].numpy() + 1e-9})
    assert (values["relearn_passes"], values["relearn_censored"]) == (1, 0)


def test_a_model_that_knows_the_poisons_is_not_trained():
    arrays = relearning(target=forget_loss(model(), FORGET))(model())
    assert arrays["relearn_at"].tolist() == [0]


def test_who_has_seen_the_poisons_learns_them_faster():
    """A model trained on the poisons, one step of unlearning away from them, against one that never saw them."""
    recipe = Recipe(epochs=60, batch_size=9, lr=0.05)
    knowing, never = model("mlp", seed=1), model("mlp", seed=2)
    list(train_updates(knowing, FORGET, recipe, RNG))
    target = forget_loss(knowing, FORGET) + 0.1
    with torch.no_grad():
        for parameter in knowing.parameters():
            parameter.mul_(0.5)
    assert forget_loss(knowing, FORGET) > target
    passes = [relearning(target=target, passes=10)(net)["relearn_at"][-1] for net in (knowing, never)]
    assert 0 < passes[0] < passes[1]


def test_at_the_cap_the_value_is_the_cap():
    arrays = relearning(passes=1.7)(model())  # 5 of its 3 updates a pass
    assert arrays["relearn_at"][-1] == pytest.approx(5 / 3)
    values = compute_all({k: v.numpy() for k, v in arrays.items()} | {"relearn_target": np.array(0.0)})
    assert (values["relearn_passes"], values["relearn_censored"]) == (pytest.approx(5 / 3), 1)


def test_a_relearning_that_diverges_is_censored():
    hot = Recipe(batch_size=16, lr=1e30)
    arrays = relearning(recipe=hot)(model())
    assert torch.isfinite(arrays["relearn_losses"]).all() and arrays["relearn_losses"][-1] > 1e6
    assert arrays["relearn_at"][-1] == 2


@pytest.mark.parametrize(("rows", "steps"), [(1, 1), (2, 2), (5, 2), (9, 3), (64, 4), (100, 7)])
def test_checks_come_at_most_four_times_a_pass(rows, steps):
    """Batches of 16, the recipe's, or of a quarter of the rows; a batch of one row joins the one before."""
    arrays = relearning(forget=examples(rows), passes=1.0)(model())
    every = math.ceil(steps / 4)
    made = sorted({*range(0, steps, every), steps})
    np.testing.assert_allclose(arrays["relearn_at"], np.array(made) / steps)


@pytest.mark.parametrize(("rows", "epochs"), [(40, 40), (100, 40), (400, 60), (2000, 3)])
def test_the_cap_keeps_to_two_percent_of_the_oracle(rows, epochs):
    clean = 2000
    passes = affordable_passes(forget_rows=rows, oracle_row_passes=epochs * clean)
    cost = passes * rows * (1 + 4 / 3) / (epochs * clean)
    assert cost == pytest.approx(COST_SHARE) if passes < MOST_PASSES else cost < COST_SHARE


@pytest.mark.slow
def test_flops_are_about_two_percent_of_the_oracle():
    """Counted by torch. The first check comes on top, and a small network's first layer, whose backward pass costs as
    much as its forward pass and not twice that, makes checks dearer."""
    forget, clean, recipe = examples(60), examples(600), Recipe(epochs=20, batch_size=50)
    passes = affordable_passes(forget_rows=60, oracle_row_passes=20 * 600)
    with FlopCounterMode(display=False) as counter:
        list(train_updates(model("convnet"), clean, recipe, RNG))
    oracle = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        relearning(forget=forget, recipe=recipe, passes=passes)(model("convnet"))
    assert 0.015 < counter.get_total_flops() / oracle < 0.03
