"""Fine-tuning with an L1 penalty: its limits, its step by hand, and its schedules in closed form."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.contracts.tiny import MODELS, RETAIN, Forbidden, examples, model, run, same_state, task, weights
from unlearn_core.checks import InputError
from unlearn_core.scenarios.scenario import Split
from unlearn_core.unlearners import GD, L1Sparse

SETTINGS = dict(lr=0.05, epochs=2, batch_size=16)
DATA = Split(RETAIN, Forbidden())
FEW = Split(examples(4, shape=(1,), classes=2), Forbidden())
START = torch.tensor([-0.5, -0.03, 0.0, 0.002, 0.04, 1.0])

both_steps = pytest.mark.parametrize("step", ["subgradient", "prox"])


class Still(nn.Module):
    """Outputs, hence gradients, do not depend on the parameters."""

    def __init__(self):
        super().__init__()
        self.values = nn.Parameter(START.clone())

    def forward(self, inputs):
        return inputs.new_zeros(len(inputs), 2) + 0 * self.values.sum()


def moved(**settings):
    """START after runs whose only force is the penalty; two steps per epoch."""
    method = L1Sparse(**dict(lr=0.1, batch_size=2, weight_decay=0.0, momentum=0.0) | settings)
    return run(method, Still(), FEW).final.values.detach()


@pytest.mark.slow
@pytest.mark.parametrize("net", MODELS)
@both_steps
@pytest.mark.parametrize("nothing", [dict(gamma=0.0), dict(gamma=0.1, free_epochs=2), dict(gamma=0.1, free_epochs=5)])
def test_no_penalty_is_gd_bit_for_bit(net, step, nothing):
    sparse = run(L1Sparse(**SETTINGS, step=step, **nothing), model(net), DATA).final
    assert same_state(sparse, run(GD(**SETTINGS), model(net), DATA).final)


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_prox_without_gradient_in_closed_form(steps):
    """|θ_T| = max(|θ_0| − T η γ, 0): exact zeros appear, and stay."""
    end = moved(epochs=steps, batch_size=4, gamma=0.05, gamma_schedule="constant", step="prox")
    expected = START.sign() * (START.abs() - steps * 0.1 * 0.05).clamp(min=0)
    torch.testing.assert_close(end, expected)
    assert torch.equal(end == 0, START.abs() <= steps * 0.1 * 0.05)


def test_the_prox_threshold_follows_the_step_size():
    """Linear schedule over 4 steps: Σ η_t = η (1 + 3/4 + 1/2 + 1/4)."""
    end = moved(epochs=4, batch_size=4, gamma=0.05, gamma_schedule="constant", step="prox", schedule="linear")
    torch.testing.assert_close(end[-1], START[-1] - 0.1 * 0.05 * 2.5)


@both_steps
@pytest.mark.parametrize(
    "schedule, free, strengths",
    [
        ("constant", 0, [1, 1, 1, 1]),
        ("constant", 1, [1, 1, 1, 0]),
        ("down", 0, [1, 3 / 4, 2 / 4, 1 / 4]),
        ("down", 2, [1, 1 / 2, 0, 0]),
        ("up", 0, [1 / 4, 2 / 4, 3 / 4, 1]),
        ("up", 2, [1 / 2, 1, 0, 0]),
    ],
)
def test_schedules(step, schedule, free, strengths):
    """The largest weight, which never crosses zero, falls by 2 η γ_e in each epoch of two steps."""
    settings = dict(gamma=0.3, gamma_schedule=schedule, free_epochs=free, step=step)
    ends = [moved(epochs=4, **settings)]
    torch.testing.assert_close(ends[0][-1], START[-1] - 2 * 0.1 * 0.3 * sum(strengths))
    net, seen = Still(), []
    method = L1Sparse(lr=0.1, batch_size=2, weight_decay=0.0, momentum=0.0, epochs=4, **settings)
    for _ in method.updates(task(net, FEW)):
        seen.append(net.values[-1].item())
    falls = (torch.tensor(seen[:-1:2]) - torch.tensor([*seen[2::2], ends[0][-1].item()])) / (2 * 0.1 * 0.3)
    torch.testing.assert_close(falls, torch.tensor(strengths, dtype=falls.dtype), rtol=0, atol=1e-5)


@pytest.mark.parametrize("net", ["mlp", "convnet"])
def test_a_step_descends_on_loss_plus_norm(net):
    by_hand = model(net).eval()
    parameters = list(by_hand.parameters())
    loss = functional.cross_entropy(by_hand(RETAIN.inputs), RETAIN.targets) + 0.02 * sum(
        p.abs().sum() for p in parameters
    )
    gradients = torch.autograd.grad(loss, parameters)
    expected = torch.cat([(p - 0.05 * g).flatten() for p, g in zip(parameters, gradients, strict=True)])
    method = L1Sparse(lr=0.05, epochs=1, batch_size=41, gamma=0.02, weight_decay=0.0, bn="frozen")
    torch.testing.assert_close(weights(run(method, model(net), DATA).final), expected, rtol=1e-5, atol=1e-6)


def test_momentum_carries_the_subgradient_as_it_carries_the_loss():
    """From rest under a constant force: velocities γ, γ (1 + m), ..., so two steps move η γ (2 + m)."""
    end = moved(epochs=2, batch_size=4, gamma=0.3, gamma_schedule="constant", momentum=0.5)
    torch.testing.assert_close(end[-1], START[-1] - 0.1 * 0.3 * 2.5)


def test_biases_and_scales_can_be_left_out():
    settings = dict(lr=0.05, epochs=1, batch_size=41)
    sparse = run(L1Sparse(**settings, gamma=0.01, penalised="weights"), model("convnet"), DATA).final
    plain = run(GD(**settings), model("convnet"), DATA).final
    for (name, p), q in zip(sparse.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(p, q) == (p.dim() == 1), name


def test_only_prox_makes_exact_zeros():
    counts = {}
    for step in ("subgradient", "prox"):
        settings = dict(gamma=0.02, gamma_schedule="constant", epochs=5, batch_size=16, lr=0.05)
        counts[step] = (weights(run(L1Sparse(**settings, step=step), model(), DATA).final) == 0).sum().item()
    assert counts["subgradient"] == 0
    assert counts["prox"] > 20


@pytest.mark.parametrize(
    "wrong", [dict(gamma=-1.0), dict(gamma_schedule="sideways"), dict(step="x"), dict(free_epochs=-1)]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        L1Sparse(**wrong)
