"""Convolution weights of small gradients drawn anew."""

import pytest
import torch
from torch.nn import functional

from tests.contracts.tiny import CPU, DATA, FORGET, RETAIN, model, run, same_state, task
from unlearn_core.checks import InputError
from unlearn_core.seeding import Streams
from unlearn_core.unlearners import GD, MSG
from unlearn_core.unlearners.msg import kernels, smallest

SETTINGS = dict(lr=0.05, epochs=2, batch_size=16)
convolutional = pytest.mark.parametrize("net", ["convnet", "resnet9"])


def begun(net, *, seed=0, **settings):
    """The model when the first fine-tuning step is announced."""
    before = {name: value.clone() for name, value in net.state_dict().items()}
    for update in MSG(**SETTINGS | settings).updates(task(net, seed=seed)):
        if update.phase == "retain":
            return net
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    raise AssertionError("no fine-tuning")


@convolutional
def test_no_reset_and_full_gradients_are_gd_bit_for_bit(net):
    method = MSG(**SETTINGS, reset_share=0.0, kept_scale=1.0)
    assert same_state(run(method, model(net)).final, run(GD(**SETTINGS), model(net)).final)


@pytest.mark.parametrize("net", ["linear", "mlp"])
def test_models_without_convolutions_are_refused(net):
    with pytest.raises(InputError, match="msg needs a model with convolutions"):
        run(MSG(**SETTINGS), model(net))


def differences(net, seed=0):
    """|∇L_retain − ∇L_forget| of each kernel, the former on as many rows as the forget set has."""
    net = net.eval()
    order = torch.randperm(len(RETAIN), generator=Streams(seed, CPU)("sample"))[: len(FORGET)]
    parts = [RETAIN.rows(order), FORGET]
    losses = [functional.cross_entropy(net(part.inputs), part.targets) for part in parts]
    gradients = torch.autograd.grad(losses[0] - losses[1], list(kernels(net).values()))
    return {name: g.abs() for name, g in zip(kernels(net), gradients, strict=True)}


@convolutional
@pytest.mark.parametrize("share", [0.1, 0.3, 0.8])
def test_the_smallest_differences_of_each_kernel_are_drawn_anew(net, share):
    start, end = model(net), begun(model(net), reset_share=share)
    sizes = differences(model(net))
    for name, value in end.state_dict().items():
        changed = value != start.state_dict()[name]
        if name not in sizes:
            assert not changed.any(), name
            continue
        assert changed.sum() == round(share * value.numel()), name
        assert sizes[name][changed].max() <= sizes[name][~changed].min() + 1e-5


@convolutional
def test_new_values_do_not_depend_on_the_corrupted_model(net):
    first, second, other = (
        kernels(begun(model(net, seed=m), seed=s, reset_share=1.0)) for m, s in ((1, 7), (2, 7), (1, 8))
    )
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not any(torch.equal(first[k], other[k]) for k in first)


@convolutional
def test_kept_weights_learn_slowly(net):
    """One step without momentum: changes of kept kernel weights are a tenth, all others as in GD."""
    settings = dict(lr=0.05, epochs=1, batch_size=41, momentum=0.0, weight_decay=0.0)
    start = begun(model(net), **settings)
    slow = run(MSG(**settings), model(net)).final
    full = run(MSG(**settings, kept_scale=1.0), model(net)).final
    reset = {k: v != w for (k, v), w in zip(kernels(start).items(), kernels(model(net)).values(), strict=True)}
    for (name, a), b, p in zip(slow.named_parameters(), full.parameters(), start.parameters(), strict=True):
        factor = torch.where(reset[name], 1.0, 0.1) if name in reset else 1.0
        torch.testing.assert_close(a - p, factor * (b - p), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 0.49, 1.0])
def test_smallest(share):
    values = torch.tensor([[3.0, 0.0], [1.0, 1.0], [0.5, 2.0]])
    chosen = smallest(values, share)
    assert chosen.sum() == round(share * 6)
    ranks = torch.tensor([[5, 0], [2, 3], [1, 4]])  # of equal values the first
    assert torch.equal(chosen, ranks < round(share * 6))


def test_cost_is_two_passes_over_the_forget_set_more_than_gd():
    row = run(GD(epochs=1), model("convnet")).rungs[0].flops / len(RETAIN)
    spent = run(MSG(**SETTINGS), model("convnet"), DATA).rungs[0].flops
    assert spent == (2 * 9 + 2 * 41) * row
