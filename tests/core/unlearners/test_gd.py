"""Fine-tuning on the retain set."""

import math

import pytest
import torch

from tests.contracts.tiny import DATA, FORGET, MODELS, RETAIN, Forbidden, model, run, same_parameters, same_state
from tests.core.unlearners.quadratic import START, A, H, Point, rows
from unlearn_core.scenarios.scenario import Split
from unlearn_core.unlearners import GD


@pytest.mark.parametrize("net", MODELS)
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_step_size_zero_keeps_every_parameter(net, optimizer):
    settings = dict(lr=0.0, epochs=1, batch_size=16, optimizer=optimizer)
    assert same_parameters(run(GD(**settings), model(net)).final, model(net))
    assert same_state(run(GD(**settings, bn="frozen"), model(net)).final, model(net))  # buffers as well


def test_batch_norm_statistics_move_only_in_mode_train():
    settings = dict(lr=0.0, epochs=1, batch_size=16)
    assert not same_state(run(GD(**settings, bn="train"), model("convnet")).final, model("convnet"))


def test_closed_form_on_a_quadratic(quadratic_loss):
    """θ_t = a + (I − η H)^t (θ_0 − a)."""
    eta, steps = 0.1, 12
    method = GD(lr=eta, epochs=steps, batch_size=4, momentum=0.0, weight_decay=0.0)
    end = run(method, Point(), Split(rows(0), rows(1)))
    assert end.rungs[0].steps == steps
    expected = A[0] + torch.linalg.matrix_power(torch.eye(2) - eta * H[0], steps) @ (START - A[0])
    torch.testing.assert_close(end.final.theta, expected, rtol=1e-5, atol=1e-6)


def test_momentum_on_a_quadratic(quadratic_loss):
    """Heavy ball: (θ_t − a, v_t) follow a linear map."""
    eta, m, steps = 0.05, 0.9, 9
    method = GD(lr=eta, epochs=steps, batch_size=4, momentum=m, weight_decay=0.0)
    eye = torch.eye(2)
    step = torch.cat([torch.cat([eye - eta * H[0], -eta * m * eye], 1), torch.cat([H[0], m * eye], 1)])
    away = torch.linalg.matrix_power(step, steps) @ torch.cat([START - A[0], torch.zeros(2)])
    end = run(method, Point(), Split(rows(0), rows(1))).final.theta
    torch.testing.assert_close(end, A[0] + away[:2], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear"])
def test_the_schedule_spans_the_methods_own_epochs(quadratic_loss, schedule):
    factors = {
        "constant": lambda p: 1.0,
        "cosine": lambda p: 0.5 * (1 + math.cos(math.pi * p)),
        "linear": lambda p: 1 - p,
    }
    away, steps = START - A[0], 8  # 4 epochs of 2 batches
    for t in range(steps):
        away = away - 0.1 * factors[schedule](t / steps) * H[0] @ away
    method = GD(lr=0.1, epochs=4, batch_size=2, momentum=0.0, weight_decay=0.0, schedule=schedule)
    end = run(method, Point(), Split(rows(0), rows(1))).final.theta
    torch.testing.assert_close(end, A[0] + away, rtol=1e-5, atol=1e-6)


def test_the_forget_set_is_never_read():
    settings = dict(lr=0.1, epochs=1, batch_size=16)
    alone = run(GD(**settings), data=Split(RETAIN, Forbidden())).final
    assert same_state(alone, run(GD(**settings), data=Split(RETAIN, FORGET)).final)
    assert not same_state(alone, run(GD(**settings), data=Split(DATA.forget, DATA.retain)).final)
