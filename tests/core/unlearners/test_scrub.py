"""SCRUB: the distance, its symmetry at the start, and its limits."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from tests.contracts.tiny import (
    DATA,
    FORGET,
    MODELS,
    RETAIN,
    Forbidden,
    model,
    run,
    same_parameters,
    same_state,
    task,
    weights,
)
from unlearn_core.scenarios.scenario import Split
from unlearn_core.unlearners import GD, SCRUB, scrub
from unlearn_core.unlearners.scrub import distillation

SETTINGS = dict(lr=0.05, epochs=2, batch_size=16, forget_batch_size=3)


def test_distance_by_hand():
    """Teacher (2/3, 1/3), student (1/2, 1/2): KL(teacher || student) = 2/3 log 4/3 + 1/3 log 2/3."""
    teacher, student = torch.tensor([[math.log(2.0), 0.0]]), torch.zeros(1, 2)
    forward = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    assert distillation(teacher, student, 1.0).item() == pytest.approx(forward, rel=1e-5)
    assert distillation(student, teacher, 1.0).item() == pytest.approx(
        0.5 * math.log(3 / 4) + 0.5 * math.log(3 / 2), rel=1e-5
    )
    for tau in (2.0, 4.0):  # logits tau times as large, softened by tau: the same distance, times tau squared
        assert distillation(tau * teacher, student, tau).item() == pytest.approx(tau**2 * forward, rel=1e-5)


def test_distance_is_a_mean_over_rows_not_classes():
    random = torch.Generator().manual_seed(0)
    teacher, student = torch.randn(2, 7, 5, generator=random, dtype=torch.float64)
    p, q = (functional.softmax(z / 2, 1) for z in (teacher, student))
    rows = (p * (p / q).log()).sum(1)
    torch.testing.assert_close(distillation(teacher, student, 2.0), 4 * rows.mean())


def test_distance_has_no_gradient_where_student_and_teacher_agree():
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    student = logits.clone().requires_grad_()
    value = distillation(logits, student, 4.0)
    (gradient,) = torch.autograd.grad(value, student)
    assert abs(value.item()) < 1e-15
    assert gradient.abs().max() < 1e-15


def first_pass(net, phase, **settings):
    """The model after the updates of `phase` that come first."""
    net = model(net)
    updates = SCRUB(**SETTINGS | settings).updates(task(net))
    for update in updates:
        if update.phase != phase:
            break
    return net


@pytest.mark.parametrize("net", ["linear", "mlp"])
def test_the_first_max_pass_does_nothing_without_batch_norm(net):
    after = first_pass(net, "max", weight_decay=0.0)
    torch.testing.assert_close(weights(after), weights(model(net)), rtol=0, atol=1e-6)
    assert not torch.allclose(weights(first_pass(net, "max", weight_decay=0.1)), weights(model(net)), atol=1e-4)


def test_batch_norm_in_mode_train_breaks_the_symmetry():
    assert not torch.allclose(weights(first_pass("convnet", "max", weight_decay=0.0)), weights(model("convnet")))
    frozen = first_pass("convnet", "max", weight_decay=0.0, bn="frozen")
    torch.testing.assert_close(weights(frozen), weights(model("convnet")), rtol=0, atol=1e-6)


def distance_on_forget(net, corrupted):
    return distillation(corrupted.eval()(FORGET.inputs), net.eval()(FORGET.inputs), 4.0).item()


def test_min_first_breaks_the_symmetry():
    """One epoch of each order: only after a min pass has the max pass something to push away from."""
    settings = dict(epochs=1, max_epochs=1, weight_decay=0.0, momentum=0.0, lr=0.02)
    stay, max_first, min_first = (
        run(SCRUB(**SETTINGS | settings | extra)).final
        for extra in (dict(max_epochs=0), dict(order="max_first"), dict(order="min_first"))
    )
    start = model()
    assert distance_on_forget(max_first, start) == pytest.approx(distance_on_forget(stay, start), rel=1e-2)
    assert distance_on_forget(min_first, start) > 1.1 * distance_on_forget(stay, start)


@pytest.mark.parametrize("net", MODELS)
@pytest.mark.parametrize("bn", ["train", "frozen"])
def test_cross_entropy_alone_is_gd_bit_for_bit(net, bn):
    shared = dict(lr=0.05, epochs=2, batch_size=16, momentum=0.9, weight_decay=5e-4, bn=bn)
    method = SCRUB(**shared, max_epochs=0, alpha=0.0, gamma=1.0)
    data = Split(RETAIN, Forbidden())
    assert same_state(run(method, model(net), data).final, run(GD(**shared), model(net), data).final)


def test_only_the_distance_keeps_the_model_where_it_is():
    settings = dict(max_epochs=0, alpha=1.0, gamma=0.0, weight_decay=0.0)
    end = run(SCRUB(**SETTINGS | settings)).final
    torch.testing.assert_close(weights(end), weights(model()), rtol=0, atol=1e-6)


def test_the_teacher_is_a_frozen_copy(monkeypatch):
    made, student = [], model("convnet")

    def watched(net):
        made.append(copy.deepcopy(net))
        return made[-1]

    monkeypatch.setattr(scrub, "copy", SimpleNamespace(deepcopy=watched))
    for _ in SCRUB(**SETTINGS, order="min_first").updates(task(student)):
        pass
    (teacher,) = made
    assert same_state(teacher, model("convnet"))
    assert not teacher.training
    assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    assert not same_parameters(student, teacher)


@pytest.mark.parametrize(
    ("order", "expected"),
    [("max_first", ["max"] * 3 + ["min"] * 3), ("min_first", ["min"] * 3 + ["max"] * 3)],
)
def test_order_of_passes(order, expected):
    method = SCRUB(**SETTINGS | dict(epochs=3), max_epochs=2, order=order)
    phases = [update.phase for update in method.updates(task(model()))]
    assert phases == expected * 2 + ["min"] * 3


def test_step_size_falls_after_the_listed_epochs():
    """A min pass on a model at rest only decays weights: by (1 − lr λ) per step, momentum off."""
    settings = dict(lr=0.1, epochs=3, batch_size=41, momentum=0.0, weight_decay=0.5, max_epochs=0, alpha=0.0, gamma=0.0)
    end = run(SCRUB(**settings, decay_epochs=(1, 2))).final
    expected = (1 - 0.1 * 0.5) * (1 - 0.01 * 0.5) * (1 - 0.001 * 0.5)
    torch.testing.assert_close(weights(end), expected * weights(model()))


def test_an_update_costs_four_thirds_of_a_training_update():
    """The teacher's forward pass is charged. (The first layer passes no gradient on: 5/6 of 3 units in `mlp`.)"""
    forward = 2 * (192 * 6 + 6 * 4)
    training = run(GD(epochs=1, batch_size=16)).rungs[0].flops / len(RETAIN)
    spent = run(SCRUB(epochs=1, batch_size=16, max_epochs=1), data=DATA).rungs[0].flops
    assert spent == (len(RETAIN) + len(FORGET)) * (training + forward)
