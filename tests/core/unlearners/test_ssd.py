"""Selective synaptic dampening: limits, bounds, and a two-parameter model by hand."""

import copy

import pytest
import torch
from torch import nn

from tests.contracts.tiny import DATA, FORGET, MODELS, RETAIN, model, run, same_parameters, same_state, task, weights
from unlearn_core.checks import InputError
from unlearn_core.gradients.fisher import squared_gradient_sums
from unlearn_core.scenarios.scenario import Split
from unlearn_core.types import Examples
from unlearn_core.unlearners import GD, SSD
from unlearn_core.unlearners.ssd import dampen

every_model = pytest.mark.parametrize("net", MODELS)


def dampened(net="mlp", split=DATA, **settings):
    return run(SSD(**settings), model(net), split).final


@every_model
def test_a_huge_threshold_changes_nothing(net):
    assert same_state(dampened(net, alpha=1e9), model(net))


@every_model
def test_what_changes_shrinks_towards_zero_and_keeps_its_sign(net):
    before, after = weights(model(net)), weights(dampened(net, alpha=1.1, ratio=0.5))
    assert (after.abs() <= before.abs()).all()
    assert (after * before >= 0).all()
    assert 0 < (after != before).float().mean() < 1
    buffers = dict(model(net).named_buffers())
    assert all(torch.equal(b, buffers[k]) for k, b in dampened(net, alpha=1.1).named_buffers())


@every_model
@pytest.mark.parametrize("ratio", [0.1, 1.0])
def test_no_threshold_above_rows_per_forget_row_selects_anything(net, ratio):
    """D holds the forget rows, so F_forget <= (n / n_forget) F_D; without them in D there is no such bound."""
    bound = (len(RETAIN) + len(FORGET)) / len(FORGET)
    assert same_state(dampened(net, alpha=bound * (1 + 1e-5), ratio=ratio), model(net))


def test_the_bound_is_attained_where_retain_rows_have_no_gradient():
    """Inputs that retain rows never light: their weights' importance comes from forget rows alone."""
    inputs = RETAIN.inputs.clone()
    inputs[:, 0] = 0
    data, bound = Split(Examples(inputs, RETAIN.targets, RETAIN.ids), FORGET), 50 / 9
    before = model("linear")[0][1].weight.detach()
    after = dampened("linear", data, alpha=bound * 0.999, ratio=0.9 / (bound * 0.999))[0][1].weight.detach()
    torch.testing.assert_close(after[:, :64], before[:, :64] * 0.9 / bound)
    zeroed = dampened("linear", data, alpha=1e6, data="retain")[0][1].weight.detach()
    assert zeroed[:, :64].eq(0).all()
    assert torch.equal(zeroed[:, 64:], before[:, 64:])


@every_model
@pytest.mark.parametrize("alpha", [0.3, 1.0])
def test_a_ratio_above_one_is_redundant(net, alpha):
    """λ > α is the method with threshold λ and ratio 1: in between, the factor min(λ F_D / F_forget, 1) is 1."""
    forget, data = (squared_gradient_sums(model(net), rows.inputs, rows.targets) for rows in (FORGET, RETAIN))
    ends = []
    for threshold in (alpha, 1.2):
        end = model(net)
        dampen(end, forget, data, alpha=threshold, dampening=1.2)
        ends.append(weights(end))
    torch.testing.assert_close(*ends, rtol=1e-6, atol=0)
    between = torch.cat([((f > alpha * data[k]) & (f < 1.2 * data[k])).flatten() for k, f in forget.items()])
    assert between.any()
    with pytest.raises(InputError, match="ratio"):
        SSD(alpha=alpha, ratio=1.2 / alpha)


def test_only_ratios_matter():
    """Losses in other units scale both sums alike."""
    random = torch.Generator().manual_seed(0)
    sums = [{k: torch.rand(p.shape, generator=random) for k, p in model().named_parameters()} for _ in range(2)]
    ends = []
    for scale in (1.0, 4.0):  # a power of 2, so that not a bit changes
        net = model()
        dampen(net, *({k: scale * v for k, v in s.items()} for s in sums), alpha=1.5, dampening=0.8)
        ends.append(net)
    assert same_parameters(*ends)
    assert not same_parameters(ends[0], model())


class TwoWeights(nn.Module):
    """Logits (w1 x1 + w2 x2, 0)."""

    def __init__(self, w):
        super().__init__()
        self.head = nn.Sequential(nn.Linear(2, 1, bias=False), nn.ZeroPad1d((0, 1)))
        self.head[0].weight.data.copy_(torch.tensor([w]))

    def forward(self, x):
        return self.head(x)


def test_two_weights_by_hand():
    """At w = 0 the probability is 1/2, so the gradient of label 0 is −x/2: F_S = mean of x²/4.

    Forget: x = (2, 1), so F_f = (1, 1/4). Retain: (1, 1) three times, so F_D = (1 + 3/4, 1/4 + 3/4)/4 = (7/16, 1/4).
    Ratios: 16/7 and 1. Weights tiny but not 0, so that a factor can be seen.
    """
    w = [1e-4, -2e-4]
    forget = Examples(torch.tensor([[2.0, 1.0]]), torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    retain = Examples(torch.ones(3, 2), torch.zeros(3, dtype=torch.long), torch.arange(3))
    end = weights(run(SSD(alpha=1.5, ratio=1 / 1.5), TwoWeights(w), Split(retain, forget)).final)
    torch.testing.assert_close(end, torch.tensor([w[0] * 7 / 16, w[1]]), rtol=1e-3, atol=0)
    end = weights(run(SSD(alpha=0.5, ratio=1.0), TwoWeights(w), Split(retain, forget)).final)
    torch.testing.assert_close(end, torch.tensor([w[0] * 7 / 32, w[1] / 2]), rtol=1e-3, atol=0)
    end = weights(run(SSD(alpha=3.9, ratio=1 / 3.9, data="retain"), TwoWeights(w), Split(retain, forget)).final)
    torch.testing.assert_close(end, torch.tensor([w[0] / 4, w[1]]), rtol=1e-3, atol=0)


def squares_by_hand(net, rows, batch):
    """Mean over batches of the squared gradient of the batch's mean loss."""
    totals = [torch.zeros_like(p) for p in net.parameters()]
    parts = torch.arange(len(rows)).split(batch)
    for part in parts:
        loss = nn.functional.cross_entropy(net(rows.inputs[part]), rows.targets[part])
        for total, g in zip(totals, torch.autograd.grad(loss, list(net.parameters())), strict=True):
            total += g.square() / len(parts)
    return totals


@pytest.mark.parametrize("net", ["mlp", "convnet"])
@pytest.mark.parametrize("batch", [1, 5])
@pytest.mark.parametrize(("retain_share", "read"), [(1.0, 39), (0.5, 20)])  # the latter leaves batches of 5 whole
def test_the_whole_method_written_out(net, batch, retain_share, read):
    """Squares of the mean gradients of fisher batches; a sample stands for all retain rows."""
    retain = RETAIN.rows(torch.arange(39))
    by_hand = model(net).eval()
    sample = torch.randperm(39, generator=task(by_hand).rng("sample"))[:read]
    forget_mean = squares_by_hand(by_hand, FORGET, batch)
    retain_mean = squares_by_hand(by_hand, retain.rows(sample), batch)
    with torch.no_grad():
        for p, f, r in zip(by_hand.parameters(), forget_mean, retain_mean, strict=True):
            d = (9 * f + 39 * r) / 48
            p.mul_(torch.where(f > 1.3 * d, (0.7 * d / f).clamp(max=1), 1.0))
    settings = dict(alpha=1.3, ratio=0.7 / 1.3, fisher_batch=batch, chunk=7, retain_share=retain_share)
    end = run(SSD(**settings), model(net), Split(retain, FORGET)).final
    assert not same_parameters(end, model(net))
    torch.testing.assert_close(weights(end), weights(by_hand), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 5, 40, 1000])
def test_the_chunk_is_only_a_matter_of_memory(chunk):
    torch.testing.assert_close(
        weights(dampened(alpha=1.0, chunk=chunk)), weights(dampened(alpha=1.0)), rtol=1e-4, atol=1e-6
    )


def test_no_row_is_read_twice_and_a_share_costs_a_share():
    """One forward and backward pass of each row: squares of gradients cost what the gradients do."""
    row = run(GD(epochs=1, batch_size=10), model("mlp")).rungs[0].flops / len(RETAIN)
    for share, rows in ((1.0, 41 + 9), (0.5, 20 + 9)):
        assert run(SSD(retain_share=share, chunk=10)).rungs[0].flops == rows * row


def test_a_budget_that_does_not_reach_the_end_changes_nothing():
    full = run(SSD(alpha=1.0, chunk=5)).rungs[0].flops
    ladder = run(SSD(alpha=1.0, chunk=5), budgets=[0.5 * full, full, 2 * full])
    assert same_state(ladder.models[0], model())
    assert not same_state(ladder.models[1], model())
    assert [rung.status for rung in ladder.rungs] == ["ok", "finished", "finished"]
    assert same_state(ladder.models[1], ladder.models[2])


def test_importances_are_those_of_the_corrupted_model():
    """The model is read, not trained: sums are the same before and after the passes."""
    net = copy.deepcopy(model("convnet"))
    sums = squared_gradient_sums(net, FORGET.inputs, FORGET.targets)
    again = squared_gradient_sums(net, FORGET.inputs, FORGET.targets)
    assert all(torch.equal(sums[k], again[k]) for k in sums)
    assert same_state(net, model("convnet"))
