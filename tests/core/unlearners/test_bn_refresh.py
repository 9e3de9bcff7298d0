"""The control that re-estimates BatchNorm statistics."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.contracts.tiny import (
    CLASSES,
    RETAIN,
    SHAPE,
    Forbidden,
    model,
    run,
    same_parameters,
    same_state,
    task,
)
from unlearn_core.checks import InputError
from unlearn_core.models import ConvNet, build_model
from unlearn_core.scenarios.scenario import Split
from unlearn_core.training import batches
from unlearn_core.types import Examples
from unlearn_core.unlearners import BNRefresh

DATA = Split(RETAIN, Forbidden())
models_with_batch_norm = pytest.mark.parametrize("net", ["convnet", "resnet9"])


def norms(net):
    return [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]


def first_inputs(net, inputs):
    """What the first BatchNorm layer gets: it depends on no other statistics."""
    convolution = next(m for m in net.modules() if isinstance(m, nn.Conv2d))
    return convolution(inputs).detach()


@models_with_batch_norm
def test_no_parameter_moves(net):
    end = run(BNRefresh(batch_size=16), model(net), DATA).final
    assert same_parameters(end, model(net))
    assert not same_state(end, model(net))


@models_with_batch_norm
def test_one_batch_gives_mean_and_variance_of_the_whole_set(net):
    end = run(BNRefresh(batch_size=41), model(net), DATA).final
    seen = first_inputs(model(net), RETAIN.inputs)
    torch.testing.assert_close(norms(end)[0].running_mean, seen.mean((0, 2, 3)))
    torch.testing.assert_close(norms(end)[0].running_var, seen.var((0, 2, 3)))


@models_with_batch_norm
def test_batches_are_weighted_by_their_rows(net):
    """16 + 16 + 9 rows; and a run that is stopped has the mean of the batches so far."""
    stream = list(batches(RETAIN, 16, task(None, DATA).rng, "retain", epochs=[0]))
    tried, read, mean, var = model(net), 0, 0.0, 0.0
    updates = BNRefresh(batch_size=16).updates(task(tried, DATA))
    assert next(updates).size == len(stream[0][1])
    for inputs, targets in stream:
        next(updates, None)
        seen = first_inputs(model(net), inputs)
        read += len(targets)
        mean = mean + (seen.mean((0, 2, 3)) - mean) * len(targets) / read
        var = var + (seen.var((0, 2, 3)) - var) * len(targets) / read
        torch.testing.assert_close(norms(tried)[0].running_mean, mean)
        torch.testing.assert_close(norms(tried)[0].running_var, var)
    sizes = [len(targets) for _, targets in stream]
    assert sizes == [16, 16, 9]
    whole = first_inputs(model(net), RETAIN.inputs).mean((0, 2, 3))
    torch.testing.assert_close(norms(tried)[0].running_mean, whole, rtol=1e-4, atol=1e-5)


@models_with_batch_norm
def test_nothing_of_the_old_statistics_is_left(net):
    worn = model(net)
    for norm in norms(worn):
        norm.running_mean.fill_(77.0)
        norm.running_var.fill_(1e6)
    ends = [run(BNRefresh(batch_size=16), given, DATA).final for given in (worn, model(net))]
    assert all(torch.equal(a.running_mean, b.running_mean) for a, b in zip(*map(norms, ends), strict=True))
    assert all(torch.equal(a.running_var, b.running_var) for a, b in zip(*map(norms, ends), strict=True))


@models_with_batch_norm
def test_momentum_and_modes_are_put_back(net):
    given = model(net).eval()
    for i, norm in enumerate(norms(given)):
        norm.momentum = 0.01 * (i + 1)
    for _ in BNRefresh(batch_size=16).updates(task(given, DATA)):
        assert [norm.momentum for norm in norms(given)] == [0.01 * (i + 1) for i in range(len(norms(given)))]
        assert not any(module.training for module in given.modules())


def test_labels_are_never_read():
    other = Examples(RETAIN.inputs, (RETAIN.targets + 1) % CLASSES, RETAIN.ids)
    ends = [run(BNRefresh(), model("convnet"), Split(rows, Forbidden())).final for rows in (RETAIN, other)]
    assert same_state(*ends)


@models_with_batch_norm
def test_cost_is_one_forward_pass(net):
    given = model(net)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        given(RETAIN.inputs)
    assert run(BNRefresh(batch_size=16), given, DATA).rungs[0].flops == counter.get_total_flops()


@pytest.mark.parametrize("net", ["linear", "mlp", "convnet without"])
def test_models_without_batch_norm_are_refused(net):
    bare = ConvNet(width=2, batch_norm=False)
    given = model(net) if " " not in net else build_model(bare, input_shape=SHAPE, classes=CLASSES, seed=0)
    with pytest.raises(InputError, match="bn_refresh needs a model with BatchNorm"):
        run(BNRefresh(), given, DATA)
