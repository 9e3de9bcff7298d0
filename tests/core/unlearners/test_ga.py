"""Gradient ascent on the forget set."""

import math

import pytest
import torch
from torch.nn import functional

from tests.contracts.tiny import (
    CPU,
    FORGET,
    MODELS,
    RETAIN,
    Forbidden,
    model,
    run,
    same_parameters,
    same_state,
    weights,
)
from tests.core.unlearners.quadratic import START, A, H, Point, rows
from unlearn_core.scenarios.scenario import Split
from unlearn_core.seeding import Streams
from unlearn_core.training import batches
from unlearn_core.unlearners import GA

ONLY_FORGET = Split(Forbidden(), FORGET)


@pytest.mark.parametrize("net", MODELS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_ascent_is_descent_with_the_gradient_reversed(net, momentum):
    """Bit for bit torch's own maximisation, in a loop written out; the retain set is never read."""
    method = GA(lr=0.05, epochs=2, batch_size=4, momentum=momentum)
    by_hand = model(net).eval()
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.05, momentum=momentum, maximize=True, fused=True)
    for inputs, targets in batches(FORGET, 4, Streams(0, CPU), "forget", epochs=range(2)):
        optimizer.zero_grad()
        functional.cross_entropy(by_hand(inputs), targets).backward()
        optimizer.step()
    assert same_state(run(method, model(net), ONLY_FORGET).final, by_hand)


def test_expansion_on_a_quadratic(quadratic_loss):
    """θ_t = a + (I + η H)^t (θ_0 − a): the farther, the faster."""
    eta, steps = 0.1, 10
    method = GA(lr=eta, epochs=steps, batch_size=4)
    end = run(method, Point(), Split(Forbidden(), rows(1))).final.theta
    expected = A[1] + torch.linalg.matrix_power(torch.eye(2) + eta * H[1], steps) @ (START - A[1])
    torch.testing.assert_close(end, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_still_shrinks(quadratic_loss, optimizer):
    """At the loss's stationary point only the decay acts: |θ| falls by the factor (1 − η λ) a step."""
    at_rest = Split(Forbidden(), rows(1))
    method = GA(lr=0.1, epochs=1, batch_size=4, weight_decay=0.5, optimizer=optimizer)
    end = run(method, Point(A[1]), at_rest).final.theta
    torch.testing.assert_close(end, A[1] * (1 - 0.1 * 0.5))


def test_the_loss_rises():
    before, after = (
        functional.cross_entropy(net.eval()(FORGET.inputs), FORGET.targets)
        for net in (model("convnet"), run(GA(lr=0.01, epochs=3), model("convnet")).final)
    )
    assert after > before


def test_batches_above_the_cap_do_not_push():
    loss = functional.cross_entropy(model()(FORGET.inputs), FORGET.targets).item() / math.log(4)
    settings = dict(lr=0.05, epochs=1, batch_size=9)
    assert same_parameters(run(GA(**settings, loss_cap=0.99 * loss)).final, model())
    assert same_state(run(GA(**settings, loss_cap=1.01 * loss)).final, run(GA(**settings)).final)


def test_the_cap_bounds_the_loss():
    """Beyond log C a batch stands still, so the loss of the set overshoots by one step at most."""
    settings = dict(lr=0.02, epochs=60, batch_size=9)
    ends = [run(GA(**settings, loss_cap=cap)).final for cap in (1.5, None)]
    capped, free = (functional.cross_entropy(end(FORGET.inputs), FORGET.targets).item() for end in ends)
    assert 1.5 * math.log(4) < capped < 1.7 * math.log(4)
    assert free > 2 * capped


@pytest.mark.parametrize("limit", [0.01, 1e6])
def test_clip_bounds_the_step(limit):
    lr = 0.5
    free = run(GA(lr=lr, epochs=1, batch_size=9)).final
    clipped = run(GA(lr=lr, epochs=1, batch_size=9, clip=limit)).final
    step, full = (weights(net) - weights(model()) for net in (clipped, free))
    torch.testing.assert_close(step, full * min(1.0, lr * limit / full.norm().item()), rtol=1e-3, atol=1e-6)


def test_clip_of_a_vanished_gradient_is_no_error():
    assert same_parameters(run(GA(lr=0.1, epochs=2, clip=1.0, loss_cap=1e-6)).final, model())


@pytest.mark.parametrize("net", ["convnet", "resnet9"])
def test_batch_norm_is_frozen_unless_asked_for(net):
    frozen, moving = (run(GA(lr=0.01, epochs=1, batch_size=4, bn=bn), model(net)).final for bn in ("frozen", "train"))
    start = dict(model(net).named_buffers())
    assert all(torch.equal(b, start[k]) for k, b in frozen.named_buffers())
    assert not all(torch.equal(b, start[k]) for k, b in moving.named_buffers())


def test_epochs_count_passes_over_the_forget_set():
    assert run(GA(epochs=3, batch_size=3)).rungs[0].steps == 3 * 3
    assert len(RETAIN) != len(FORGET)
