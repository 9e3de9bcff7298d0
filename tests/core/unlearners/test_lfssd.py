"""Label-free SSD: its importances against a loop over rows, and what it does not read."""

import pytest
import torch

from tests.contracts.tiny import CLASSES, DATA, FORGET, MODELS, RETAIN, model, run, same_parameters, same_state, task
from tests.core.unlearners.parts import collected
from unlearn_core.gradients import fisher
from unlearn_core.gradients.fisher import own_gradients
from unlearn_core.models import Gpt2, build_model
from unlearn_core.scenarios.scenario import Split
from unlearn_core.types import Examples
from unlearn_core.unlearners import GD, LFSSD, SSD
from unlearn_core.unlearners.importance import (
    absolute_batch_gradient,
    absolute_gradient_sums,
    absolute_sums,
    norms,
    squared_norms,
)

every_model = pytest.mark.parametrize("net", MODELS)


def looped(net, inputs, value):
    """Σ_n |∇ value(z_n)| by a backward pass for each row."""
    net, parameters = net.eval(), dict(net.named_parameters())
    totals = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for x in inputs:
        gradients = torch.autograd.grad(value(net(x[None])[0]), list(parameters.values()))
        for total, g in zip(totals.values(), gradients, strict=True):
            total += g.abs()
    return totals


@every_model
@pytest.mark.parametrize(
    "output, value", [(norms, lambda z: z.pow(2).sum().sqrt()), (squared_norms, lambda z: z.pow(2).sum())]
)
def test_sums_are_those_of_a_loop_over_rows(net, output, value):
    sums = absolute_gradient_sums(model(net), FORGET.inputs, output)
    expected = looped(model(net), FORGET.inputs, value)
    assert sums.keys() == expected.keys()
    for name, total in expected.items():
        torch.testing.assert_close(sums[name], total, rtol=1e-3, atol=1e-4)


def test_sums_of_a_transformer_are_those_of_a_loop_over_rows():
    net = build_model(Gpt2(layers=1, width=8, heads=2), input_shape=(6, 11), classes=4, seed=0)
    ids = torch.randint(11, (5, 6), generator=torch.Generator().manual_seed(0))
    sums = absolute_gradient_sums(net, ids, squared_norms)
    for name, total in looped(net, ids, lambda z: z.pow(2).sum()).items():
        torch.testing.assert_close(sums[name], total, rtol=1e-3, atol=1e-6)


def test_tables_of_tokens_are_summed_over_the_tokens_of_each_row():
    """As with a gradient of the whole table for each row, which is mostly zeros; tokens come up again in a row."""
    random = torch.Generator().manual_seed(0)
    ids, g = torch.randint(50, (6, 9), generator=random), torch.randn(6, 9, 4, generator=random)
    for table in (torch.nn.Embedding(50, 4), torch.nn.Embedding(50, 4, padding_idx=int(ids[0, 0]))):
        whole = own_gradients(table, ids, g)["weight"]
        assert whole.shape == (6, 50, 4)
        torch.testing.assert_close(absolute_sums(table, ids, g)["weight"], whole.abs().sum(0))


@pytest.mark.parametrize("floats", [1, 700])
def test_memory_limits_change_nothing(floats, monkeypatch):
    """However few rows' gradients are held at a time."""
    expected = absolute_gradient_sums(model("convnet"), FORGET.inputs, norms)
    monkeypatch.setattr(fisher, "FLOATS", floats)
    for name, value in absolute_gradient_sums(model("convnet"), FORGET.inputs, norms).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6)


def test_softmax_regression_in_closed_form():
    """‖Wx + b‖²: the gradient is 2 z xᵀ, and 2 z for the bias."""
    net = model("linear").eval()
    z = net(FORGET.inputs).detach()
    sums = absolute_gradient_sums(net, FORGET.inputs, squared_norms)
    torch.testing.assert_close(sums["head.1.bias"], 2 * z.abs().sum(0))
    torch.testing.assert_close(sums["head.1.weight"], 2 * z.abs().T @ FORGET.inputs.flatten(1).abs())


@every_model
def test_signs_cancel_in_a_batch(net):
    """|mean gradient| is at most the mean of the absolutes, less for some, and the same for one row."""
    means = {k: v / 9 for k, v in absolute_gradient_sums(model(net), FORGET.inputs, squared_norms).items()}
    batch = absolute_batch_gradient(model(net), FORGET.inputs, squared_norms)
    pairs = [(batch[name].flatten(), means[name].flatten()) for name in means]
    assert all((low <= high * (1 + 1e-4) + 1e-5).all() for low, high in pairs)
    assert any((low < 0.5 * high).any() for low, high in pairs)
    alone = absolute_gradient_sums(model(net), FORGET.inputs[:1], squared_norms)
    for name, value in absolute_batch_gradient(model(net), FORGET.inputs[:1], squared_norms).items():
        torch.testing.assert_close(alone[name], value, rtol=1e-3, atol=1e-4)


@every_model
def test_importance_is_a_mean_of_rows_whatever_the_chunk(net):
    expected = {k: v / len(FORGET) for k, v in looped(model(net), FORGET.inputs, lambda z: z.pow(2).sum()).items()}
    for chunk in (2, 5, 100):
        forget, _ = collected(LFSSD(chunk=chunk).importances(task(model(net))))
        for name, value in expected.items():
            torch.testing.assert_close(forget[name], value, rtol=1e-3, atol=1e-4)


@every_model
def test_batches_restore_the_published_rule(net):
    """The mean over batches of |mean gradient|."""
    forget, _ = collected(LFSSD(fisher_batch=3).importances(task(model(net))))
    parts = [absolute_batch_gradient(model(net), part, squared_norms) for part in FORGET.inputs.split(3)]
    for name, value in forget.items():
        torch.testing.assert_close(value, sum(part[name] for part in parts) / 3, rtol=1e-4, atol=1e-6)


@every_model
@pytest.mark.parametrize("batch", [1, 4])
def test_scrambled_labels_change_nothing(net, batch):
    random = torch.Generator().manual_seed(5)
    other = [
        Examples(s.inputs, torch.randint(CLASSES, (len(s),), generator=random), torch.arange(len(s))) for s in DATA
    ]
    method = LFSSD(alpha=1.0, ratio=0.5, fisher_batch=batch)
    end = run(method, model(net)).final
    assert same_state(end, run(method, model(net), Split(*other)).final)
    assert not same_parameters(end, model(net))


@every_model
def test_no_threshold_above_rows_per_forget_row_selects_anything(net):
    bound = (len(RETAIN) + len(FORGET)) / len(FORGET)
    assert same_state(run(LFSSD(alpha=bound * (1 + 1e-5), ratio=0.5), model(net)).final, model(net))
    assert not same_state(run(LFSSD(alpha=1.1, ratio=0.5), model(net)).final, model(net))


@every_model
def test_cost_is_that_of_ssd_and_of_one_training_pass(net):
    spent = run(LFSSD(chunk=10), model(net)).rungs[0].flops
    assert spent == run(SSD(chunk=10), model(net)).rungs[0].flops
    row = run(GD(epochs=1, batch_size=10), model(net)).rungs[0].flops / len(RETAIN)
    assert spent == pytest.approx((len(RETAIN) + len(FORGET)) * row, rel=0.01)
