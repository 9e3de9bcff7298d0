"""Negative preference optimisation: its limits at the start and for small β, and its bound."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from tests.contracts.tiny import (
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
from unlearn_core.types import Examples
from unlearn_core.unlearners import GA, GD, NPO, npo
from unlearn_core.unlearners.npo import preference

FORGET_ONLY = Split(Forbidden(), FORGET)
PLAIN = dict(lr=0.05, momentum=0.0, weight_decay=0.0)


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0, 5.0])
def test_loss_by_hand(beta):
    """Ratio 1: (2/β) log 2. Ratio r: (2/β) log(1 + r^β), with slope 2 r^β / (1 + r^β) in log r."""
    log_ratio = torch.tensor([0.0, math.log(0.5), -3.0, -1e4], dtype=torch.float64, requires_grad=True)
    value = preference(log_ratio, beta)
    r = log_ratio.detach().exp()
    torch.testing.assert_close(value, (2 / beta * (1 + r**beta).log()).mean())
    (slope,) = torch.autograd.grad(value, log_ratio)
    torch.testing.assert_close(slope, 2 * r**beta / (1 + r**beta) / 4)
    assert preference(torch.zeros(3), beta).item() == pytest.approx(2 / beta * math.log(2))


@pytest.mark.parametrize("beta", [0.01, 0.1, 1.0, 5.0])
def test_loss_is_bounded_below_by_zero(beta):
    values = [preference(torch.full((2,), -x), beta).item() for x in (0.0, 1.0, 1e2, 1e4, 1e30)]
    assert values == sorted(values, reverse=True)
    assert values[-1] == 0.0


@pytest.mark.parametrize("net", MODELS)
@pytest.mark.parametrize("bn", ["train", "frozen"])
@pytest.mark.parametrize("beta", [0.01, 1.0, 5.0])
def test_the_first_step_is_that_of_ga_for_every_beta(net, bn, beta):
    method = NPO(**PLAIN, epochs=1, batch_size=9, beta=beta, retain_weight=0.0, bn=bn)
    ascent = GA(**PLAIN, epochs=1, batch_size=9)
    ends = [run(m, model(net), FORGET_ONLY).final for m in (method, ascent)]
    torch.testing.assert_close(*map(weights, ends), rtol=1e-4, atol=1e-6)
    assert not same_parameters(ends[0], model(net))


@pytest.mark.parametrize("net", MODELS)
def test_a_small_beta_is_ga(net):
    settings = dict(lr=0.02, momentum=0.9, weight_decay=0.0, epochs=3, batch_size=4)
    ascent = weights(run(GA(**settings), model(net), FORGET_ONLY).final)
    distances = []
    for beta in (1.0, 0.01, 1e-4):
        end = weights(run(NPO(**settings, beta=beta, retain_weight=0.0), model(net), FORGET_ONLY).final)
        distances.append((end - ascent).norm() / (ascent - weights(model(net))).norm())
    assert distances[0] > 10 * distances[1] > 20 * distances[2]
    assert distances[2] < 1e-3


def forget_loss(net):
    return functional.cross_entropy(net.eval()(FORGET.inputs), FORGET.targets).item()


def test_the_push_fades_where_that_of_ga_grows():
    settings = dict(lr=0.05, momentum=0.0, weight_decay=0.0, epochs=100, batch_size=9)
    bounded = run(NPO(**settings, beta=1.0, retain_weight=0.0), data=FORGET_ONLY).final
    unbounded = run(GA(**settings), data=FORGET_ONLY).final
    assert forget_loss(model()) < forget_loss(bounded) < 0.1 * forget_loss(unbounded)


@pytest.mark.parametrize("net", ["mlp", "convnet"])
@pytest.mark.parametrize("weight", [0.5, 2.0])
def test_retain_term(net, weight):
    """One step on both sets: θ0 + η ∇L_forget − η w ∇L_retain."""
    start = model(net).eval()
    losses = [functional.cross_entropy(start(part.inputs), part.targets) for part in (FORGET, RETAIN)]
    forget, retain = (
        torch.cat([g.flatten() for g in torch.autograd.grad(value, list(start.parameters()))]) for value in losses
    )
    method = NPO(**PLAIN, epochs=1, batch_size=9, retain_batch_size=41, retain_weight=weight, bn="frozen")
    end = weights(run(method, model(net)).final)
    torch.testing.assert_close(end, weights(start) + 0.05 * (forget - weight * retain), rtol=1e-4, atol=1e-5)


def test_the_reference_is_a_frozen_copy(monkeypatch):
    made, student = [], model("convnet")

    def watched(net):
        made.append(copy.deepcopy(net))
        return made[-1]

    monkeypatch.setattr(npo, "copy", SimpleNamespace(deepcopy=watched))
    for _ in NPO(lr=0.05, batch_size=4).updates(task(student)):
        pass
    (reference,) = made
    assert same_state(reference, model("convnet"))
    assert not any(module.training for module in reference.modules())
    assert not any(p.requires_grad or p.grad is not None for p in reference.parameters())
    assert not same_parameters(student, reference)


@pytest.mark.parametrize("net", ["convnet", "resnet9"])
def test_forget_rows_leave_batch_norm_statistics_alone(net):
    far = Split(RETAIN, Examples(FORGET.inputs + 100, FORGET.targets, FORGET.ids))
    settings = dict(lr=0.0, epochs=1, batch_size=4, retain_batch_size=16)
    ends = [run(NPO(**settings), model(net), data).final for data in (Split(RETAIN, FORGET), far)]
    assert same_state(*ends)
    assert not same_state(ends[0], model(net))  # retain batches do move them


def test_cost_has_the_forward_pass_of_the_reference():
    """(The first layer of `mlp` passes no gradient on.) Two retain rows to a forget row, if they are asked for."""
    forward = 2 * (192 * 6 + 6 * 4)
    training = run(GD(epochs=1, batch_size=16)).rungs[0].flops / len(RETAIN)
    alone = run(NPO(epochs=2, batch_size=3, retain_weight=0.0), data=FORGET_ONLY).rungs[0].flops
    assert alone == 2 * 9 * (training + forward)
    retain = Split(RETAIN.rows(torch.arange(36)), FORGET)
    both = run(NPO(epochs=2, batch_size=3, retain_batch_size=6), data=retain).rungs[0].flops
    assert both == alone + 2 * 18 * training
