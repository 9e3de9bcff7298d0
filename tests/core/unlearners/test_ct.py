"""Transposed convolution kernels."""

import pytest
import torch
from torch import nn

from tests.contracts.tiny import RETAIN, Forbidden, model, run, same_state, task
from unlearn_core.checks import InputError
from unlearn_core.scenarios.scenario import Split
from unlearn_core.unlearners import CT, GD
from unlearn_core.unlearners.ct import square_convolutions, transpose

DATA = Split(RETAIN, Forbidden())
SETTINGS = dict(lr=0.05, epochs=2, batch_size=16, schedule="cosine")
convolutional = pytest.mark.parametrize("net", ["convnet", "resnet9"])


def begun(net):
    """The model when the first fine-tuning step is announced."""
    updates = CT(**SETTINGS).updates(task(net, DATA))
    assert next(updates) == ("transpose", 0)
    assert next(updates).phase == "retain"
    return net


@convolutional
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_every_kernel_is_transposed_and_nothing_else(net, layout):
    start, end = model(net).state_dict(), begun(model(net).to(memory_format=layout)).state_dict()
    for name, value in start.items():
        expected = value.transpose(2, 3) if value.dim() == 4 else value
        assert torch.equal(end[name], expected), name
    assert any(value.dim() == 4 and not torch.equal(end[name], value) for name, value in start.items())


@convolutional
def test_twice_is_the_start(net):
    given = model(net)
    transpose(square_convolutions(given))
    assert not same_state(given, model(net))
    transpose(square_convolutions(given))
    assert same_state(given, model(net))


@convolutional
def test_afterwards_it_is_gd_bit_for_bit(net):
    transposed = begun(model(net))
    assert same_state(run(CT(**SETTINGS), model(net), DATA).final, run(GD(**SETTINGS), transposed, DATA).final)


@pytest.mark.parametrize("net", ["linear", "mlp"])
def test_models_without_convolutions_are_refused(net):
    with pytest.raises(InputError, match="ct needs a model with convolutions"):
        run(CT(**SETTINGS), model(net), DATA)


def chain(**convolution):
    return nn.Sequential(nn.Conv2d(3, 4, **convolution), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(4))


def test_pointwise_kernels_stay():
    given = ready(chain(kernel_size=1))
    before = given[0].weight.clone()
    transpose(square_convolutions(given))
    assert torch.equal(given[0].weight, before)


def test_kernels_that_are_not_square_are_refused():
    with pytest.raises(InputError, match="ct needs square convolution kernels, but this model has one of 3x1"):
        run(CT(), ready(chain(kernel_size=(3, 1))), DATA)


def ready(net):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net(RETAIN.inputs)
    return net


@convolutional
def test_the_transposition_costs_nothing(net):
    with_it, without = (run(m(**SETTINGS), model(net), DATA).rungs[0] for m in (CT, GD))
    assert with_it.flops == without.flops
    assert with_it.steps == without.steps + 1
