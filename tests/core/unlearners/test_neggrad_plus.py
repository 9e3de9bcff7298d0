"""NegGrad+: descent on the retain set, ascent on the forget set."""

import pytest
import torch
from torch.nn import functional

from tests.contracts.tiny import DATA, FORGET, MODELS, RETAIN, model, run, same_state, weights
from tests.core.unlearners.quadratic import A, H, Point, rows
from unlearn_core.scenarios.scenario import Split
from unlearn_core.unlearners import GA, GD, NegGradPlus

QUADRATICS = Split(rows(0), rows(1))


@pytest.mark.parametrize("net", MODELS)
@pytest.mark.parametrize("bn", ["train", "frozen"])
def test_beta_one_is_gd_bit_for_bit(net, bn):
    """With buffers: the forget set leaves no trace at all."""
    settings = dict(lr=0.05, epochs=2, batch_size=16, bn=bn, schedule="cosine")
    assert same_state(run(NegGradPlus(**settings, beta=1.0), model(net)).final, run(GD(**settings), model(net)).final)


@pytest.mark.parametrize("net", ["linear", "mlp"])
def test_beta_zero_is_ga_bit_for_bit(net):
    settings = dict(lr=0.05, momentum=0.0, weight_decay=0.0)
    method = NegGradPlus(**settings, beta=0.0, epochs=2, batch_size=16, forget_batch_size=3)  # 2 x 3 retain batches
    ascent = GA(**settings, epochs=2, batch_size=3)  # 2 x 3 forget batches
    assert same_state(run(method, model(net)).final, run(ascent, model(net)).final)


def quadratic_step(beta):
    """θ ← θ − η (M θ − c): curvature and fixed point of the combined loss."""
    curvature = beta * H[0] - (1 - beta) * H[1]
    return curvature, torch.linalg.solve(curvature, beta * H[0] @ A[0] - (1 - beta) * H[1] @ A[1])


@pytest.mark.parametrize("beta", [0.9, 0.7])
def test_fixed_point_on_quadratics(quadratic_loss, beta):
    curvature, fixed = quadratic_step(beta)
    assert (torch.linalg.eigvalsh(curvature) > 0).all()
    method = NegGradPlus(beta=beta, lr=0.3, epochs=400, batch_size=4, momentum=0.0, weight_decay=0.0)
    torch.testing.assert_close(run(method, Point(), QUADRATICS).final.theta, fixed, rtol=1e-4, atol=1e-4)


def test_an_indefinite_loss_runs_away(quadratic_loss):
    curvature, fixed = quadratic_step(0.3)
    assert torch.linalg.eigvalsh(curvature).min() < 0
    method = NegGradPlus(beta=0.3, lr=0.3, epochs=100, batch_size=4, momentum=0.0, weight_decay=0.0)
    assert (run(method, Point(), QUADRATICS).final.theta - fixed).norm() > 1e3


def test_forget_batches_come_every_so_many_steps(quadratic_loss):
    """Closed form with a forget batch in steps 0, 3, 6, ...: two linear maps in turn."""
    eta, beta, theta = 0.1, 0.8, Point().theta
    for step in range(8):
        gradient = beta * H[0] @ (theta - A[0])
        if step % 3 == 0:
            gradient = gradient - (1 - beta) * H[1] @ (theta - A[1])
        theta = theta - eta * gradient
    method = NegGradPlus(
        beta=beta, lr=eta, epochs=8, batch_size=4, forget_every=3, forget_batch_size=3, momentum=0.0, weight_decay=0.0
    )
    torch.testing.assert_close(run(method, Point(), QUADRATICS).final.theta, theta, rtol=1e-5, atol=1e-6)


def test_the_cap_stops_the_push_but_not_the_retain_loss():
    loss = functional.cross_entropy(model()(FORGET.inputs), FORGET.targets).item()
    settings = dict(beta=0.7, lr=0.05, epochs=1, batch_size=41, forget_batch_size=9, weight_decay=0.0)
    capped = run(NegGradPlus(**settings, forget_loss_cap=0.9 * loss)).final
    never = run(NegGradPlus(**settings, forget_loss_cap=2 * loss)).final
    descent = run(GD(lr=0.05 * 0.7, epochs=1, batch_size=41, weight_decay=0.0)).final
    torch.testing.assert_close(weights(capped), weights(descent))
    assert same_state(never, run(NegGradPlus(**settings)).final)
    assert not same_state(never, capped)


@pytest.mark.parametrize("net", ["convnet", "resnet9"])
def test_the_forget_forward_leaves_batch_norm_statistics_alone(net):
    """With a step size of 0 they depend on the retain batches only."""
    far = Split(RETAIN, type(FORGET)(FORGET.inputs + 100, FORGET.targets, FORGET.ids))
    settings = dict(lr=0.0, epochs=1, batch_size=16)
    ends = [run(NegGradPlus(**settings, beta=0.5), model(net), data).final for data in (DATA, far)]
    assert same_state(*ends)
    assert same_state(ends[0], run(GD(**settings), model(net)).final)


@pytest.mark.parametrize("every", [1, 2])
def test_cost_counts_both_batches(every):
    """Rows read: each retain row once, and one forget batch in every `every` steps."""
    method = NegGradPlus(epochs=1, batch_size=16, forget_batch_size=3, forget_every=every)
    retain_only = run(GD(epochs=1, batch_size=16)).rungs[0]
    spent = run(method).rungs[0]
    forget_rows = 3 * len(range(0, spent.steps, every))
    assert spent.flops * len(RETAIN) == retain_only.flops * (len(RETAIN) + forget_rows)
