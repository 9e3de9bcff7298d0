"""Two teachers: which one a row gets, what they are, and the size of the loss."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.contracts.tiny import (
    DATA,
    FORGET,
    MODELS,
    RETAIN,
    examples,
    model,
    run,
    same_parameters,
    same_state,
    task,
    weights,
)
from unlearn_core.scenarios.scenario import Split
from unlearn_core.types import Examples
from unlearn_core.unlearners import GD, BadTeacher, bad_teacher
from unlearn_core.unlearners.bad_teacher import chosen_logits

PLAIN = dict(optimizer="sgd", momentum=0.0, weight_decay=0.0, bn="frozen", epochs=1)


@pytest.mark.parametrize("forget_rows", [0, 1, 5, 9])
@pytest.mark.parametrize("net", MODELS)
def test_targets_of_a_mixed_batch_are_chosen_row_by_row(net, forget_rows):
    first, second = model(net, 1).eval(), model(net, 2).eval()
    is_forget = torch.arange(9) < forget_rows
    is_forget = is_forget[torch.randperm(9, generator=torch.Generator().manual_seed(0))]
    expected = torch.where(is_forget[:, None], first(FORGET.inputs), second(FORGET.inputs))
    torch.testing.assert_close(chosen_logits(first, second, FORGET.inputs, is_forget), expected)


@pytest.mark.parametrize("net", MODELS)
def test_without_forget_rows_the_corrupted_model_stays(net):
    method = BadTeacher(**PLAIN | dict(epochs=3), lr=1.0, retain_share=1.0)
    end = run(method, model(net), Split(RETAIN, examples(0))).final
    torch.testing.assert_close(weights(end), weights(model(net)), rtol=0, atol=1e-5)


def teachers(monkeypatch, net, seed=0):
    """The frozen copies that a run makes of `net`: competent, untrained; after the run."""
    made = []

    def watched(original):
        made.append(copy.deepcopy(original))
        return made[-1]

    monkeypatch.setattr(bad_teacher, "copy", SimpleNamespace(deepcopy=watched))
    for _ in BadTeacher(lr=0.05, batch_size=16).updates(task(net, seed=seed)):
        pass
    return made


def test_teachers_are_frozen(monkeypatch):
    student = model("convnet")
    competent, untrained = teachers(monkeypatch, student)
    assert same_state(competent, model("convnet"))
    for teacher in (competent, untrained):
        assert not any(module.training for module in teacher.modules())
        assert not any(p.requires_grad or p.grad is not None for p in teacher.parameters())
    assert not same_parameters(student, competent)


@pytest.mark.parametrize("net", MODELS)
def test_the_untrained_teacher_does_not_depend_on_the_corrupted_model(monkeypatch, net):
    first, second = (teachers(monkeypatch, model(net, s))[1] for s in (1, 2))
    assert same_state(first, second)
    assert not same_parameters(first, teachers(monkeypatch, model(net, 1), seed=1)[1])


def test_the_loss_is_not_divided_by_the_number_of_classes(monkeypatch):
    """One step on the forget rows alone: the gradient at the logits is (p − q)/n, without the 1/C of some code."""
    net, start = model("linear"), model("linear")
    untrained = teachers(monkeypatch, model("linear"))[1]
    p, q = (z(FORGET.inputs).softmax(1) for z in (start, untrained))
    gradient = (p - q).T @ FORGET.inputs.flatten(1) / len(FORGET)
    end = run(BadTeacher(**PLAIN, lr=0.3, retain_share=0.0), net).final
    torch.testing.assert_close(end.head[1].weight, start.head[1].weight - 0.3 * gradient, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_the_distance_is_softened_and_rescaled(monkeypatch, temperature):
    """Gradient at the logits: τ² · (p_τ − q_τ)/τ per row."""
    untrained = teachers(monkeypatch, model("linear"))[1]
    p, q = ((z(FORGET.inputs) / temperature).softmax(1) for z in (model("linear"), untrained))
    gradient = temperature * (p - q).mean(0)
    end = run(BadTeacher(**PLAIN, lr=0.3, retain_share=0.0, temperature=temperature), model("linear")).final
    torch.testing.assert_close(end.head[1].bias, model("linear").head[1].bias - 0.3 * gradient, rtol=1e-4, atol=1e-6)


def test_labels_are_never_read():
    other = [Examples(s.inputs, (s.targets + 1) % 4, s.ids) for s in DATA]
    method = BadTeacher(lr=0.05, batch_size=16)
    assert same_state(run(method).final, run(method, data=Split(*other)).final)


def test_forget_rows_come_to_look_untrained(monkeypatch):
    untrained = teachers(monkeypatch, model())[1]
    end = run(BadTeacher(lr=0.01, epochs=30, retain_share=1.0)).final

    def distance(net, goal, rows):
        return (net(rows.inputs).softmax(1) - goal(rows.inputs).softmax(1)).abs().mean().item()

    assert distance(end, untrained, FORGET) < 0.5 * distance(model(), untrained, FORGET)
    assert distance(end, model(), RETAIN) < distance(end, untrained, RETAIN)


@pytest.mark.parametrize("share, rows", [(1.0, 41), (0.3, 12), (0.1, 4)])
@pytest.mark.parametrize("net", ["mlp", "convnet"])
def test_only_the_teacher_that_is_needed_is_run(net, share, rows):
    """Charged: a training update and one forward pass of each row, whatever its teacher."""
    training = run(GD(epochs=1), model(net)).rungs[0].flops / len(RETAIN)
    with FlopCounterMode(display=False) as counter:
        model(net)  # batches of 3 x 32 rows that set its statistics
    forward = counter.get_total_flops() / 96
    for size in (7, 16, 256):
        spent = run(BadTeacher(epochs=2, retain_share=share, batch_size=size), model(net)).rungs[0].flops
        assert spent == pytest.approx(2 * (rows + 9) * (training + forward), rel=1e-12)
