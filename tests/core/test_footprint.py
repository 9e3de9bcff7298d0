"""What a model is asked at once is bounded in memory, and as it always was where that fits."""

import pytest
import torch
from torch import nn

from tests.contracts.tiny import MODELS, RETAIN, model
from unlearn_core.models import Gpt2, ResNet9, ResNet18, build_model
from unlearn_core.scenarios import evaluation
from unlearn_core.scenarios.evaluation import distances, parameters_of
from unlearn_core.training import footprint, predict, tf32_products
from unlearn_core.training import loop as training
from unlearn_core.training.budget import flop_counter
from unlearn_core.training.footprint import BYTES, LIVE, Largest, rows_that_fit


def rows_seen(net, inputs):
    """How many rows each pass of `predict` takes, after the first row alone."""
    seen = []
    handle = net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    try:
        logits = predict(net, inputs)
    finally:
        handle.remove()
    return logits, seen[1:]


@pytest.mark.parametrize("net", MODELS)
def test_small_data_are_predicted_in_passes_of_1024_rows_as_ever(net):
    inputs = torch.cat([RETAIN.inputs] * 100)[:1500]
    logits, seen = rows_seen(model(net), inputs)
    assert seen == [1024, 476]
    with torch.no_grad():
        assert torch.equal(logits, torch.cat([model(net).eval()(part) for part in inputs.split(1024)]))


@pytest.mark.parametrize(("settings", "side"), [(ResNet9(), 32), (ResNet18(), 32)], ids=["resnet9", "resnet18"])
def test_cifar_fits_into_1024_rows(settings, side):
    net = build_model(settings, input_shape=(3, side, side), classes=10, seed=0).eval()
    assert rows_that_fit(net, torch.empty(2, 3, side, side), 1024) == 1024


def test_gpt2_medium_keeps_within_the_limit():
    """A row of 512 tokens has 16 scores of 512 x 512, 16 MiB, and four of them at once: 128 rows in 8 GiB."""
    settings = Gpt2(layers=1, width=1024, heads=16)
    net = build_model(settings, input_shape=(512, 1000), classes=2, seed=0).eval()
    ids = torch.zeros(1024, 512, dtype=torch.long)
    assert rows_that_fit(net, ids, 1024) == BYTES // (LIVE * 16 * 512 * 512 * 4) == 128


class Wide(nn.Module):
    """Makes 1000 numbers of each row of 10, in an operation and not in a layer."""

    def forward(self, x):
        return (x.repeat(1, 100) + 1).sum(1, keepdim=True)


def test_rows_by_the_largest_result(monkeypatch):
    assert [rows_that_fit(Wide(), torch.ones(50, 10), most, LIVE * 4000 * 7) for most in (50, 5)] == [7, 5]
    assert rows_that_fit(Wide(), torch.ones(50, 10), 50, limit=1) == 1
    monkeypatch.setattr(footprint.rows_that_fit, "__defaults__", (LIVE * 4000 * 7,))
    logits, seen = rows_seen(Wide(), torch.ones(50, 10))
    assert seen == [7] * 7 + [1]
    assert torch.equal(logits, torch.full((50, 1), 2000.0))


def test_measuring_is_charged_to_nobody():
    net, inputs = model("mlp"), RETAIN.inputs
    with flop_counter() as plain, torch.no_grad():
        net.eval()(inputs)
    with flop_counter() as counter:
        predict(net, inputs)
    assert counter.get_total_flops() == plain.get_total_flops() > 0


def test_a_model_is_measured_once_for_each_kind_of_row(monkeypatch):
    net, asked = model("mlp"), []
    net.register_forward_pre_hook(lambda _, args: asked.append(len(args[0])))
    for _ in range(3):
        predict(net, RETAIN.inputs)
    assert asked == [1] + [len(RETAIN)] * 3


def test_distances_take_few_parameters_at_a_time(monkeypatch):
    net, other = model("mlp"), model("mlp").requires_grad_(False)
    for parameter in other.parameters():
        parameter.add_(0.01)
    whole = distances(net, parameters_of(other))
    most = max(p.numel() for p in net.parameters())
    monkeypatch.setattr(evaluation, "AT_ONCE", most)
    with Largest() as largest:
        parts = distances(net, parameters_of(other))
    assert largest.bytes == 8 * most
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("device", "inside"), [("cuda", "high"), ("cpu", "highest")])
def test_products_are_rounded_on_cuda_alone_and_only_while_a_model_is_asked(device, inside, monkeypatch):
    with tf32_products(torch.device(device)):
        assert torch.get_float32_matmul_precision() == inside
    assert torch.get_float32_matmul_precision() == "highest"
    asked = []
    monkeypatch.setattr(training, "tf32_products", lambda device: asked.append(device) or torch.no_grad())
    predict(model("mlp"), RETAIN.inputs)
    assert asked == [torch.device("cpu")]
    with pytest.raises(ZeroDivisionError), tf32_products(torch.device("cuda")):
        raise ZeroDivisionError
    assert torch.get_float32_matmul_precision() == "highest"
