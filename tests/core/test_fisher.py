"""Sums of squared per-sample gradients against a loop over single rows."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from tests.contracts.tiny import MODELS, RETAIN, TEXT, TEXT_MODELS, model, run, same_state
from unlearn_core.gradients import fisher
from unlearn_core.gradients.fisher import squared_batch_gradient, squared_gradient_sums
from unlearn_core.gradients.row_gradients import rows_within
from unlearn_core.models import ResNet18, build_model
from unlearn_core.training.budget import sample_pass_flops
from unlearn_core.unlearners import SSD, FisherForgetting

CLASSES = 4


class Sequence(nn.Module):
    """(n, tokens) to logits: every kind of layer that acts on each token."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.norm = nn.LayerNorm(6)
        self.mix = nn.Linear(6, 5)
        self.head = nn.Linear(5, CLASSES, bias=False)

    def forward(self, tokens):
        return self.head(torch.tanh(self.mix(self.norm(self.embed(tokens)))).mean(1))


def convolution(*args, **settings):
    return lambda: nn.Sequential(nn.Conv2d(*args, **settings), nn.Tanh(), nn.Flatten(), nn.LazyLinear(CLASSES))


LAYERS = {
    "grouped": convolution(6, 4, 3, groups=2),
    "depthwise": convolution(6, 6, (3, 2), groups=6, padding=1),
    "strided": convolution(6, 4, 3, stride=2, padding=1),
    "dilated": convolution(6, 4, 3, dilation=2, padding=2, bias=False),
    "ragged": convolution(6, 4, (2, 3), stride=(3, 2), padding=(0, 2)),  # the stride leaves some input over
    "pointwise": convolution(6, 4, 1),
    "group norm": lambda: nn.Sequential(nn.GroupNorm(2, 6), nn.Flatten(), nn.Linear(6 * 49, CLASSES)),
    "batch norm without scale": lambda: nn.Sequential(
        nn.Conv2d(6, 4, 3), nn.BatchNorm2d(4, affine=False), nn.Flatten(), nn.LazyLinear(CLASSES)
    ),
}


def loop(net, inputs, targets):
    """One row at a time, in evaluation mode."""
    net = copy.deepcopy(net).eval()
    names, parameters = zip(*net.named_parameters(), strict=True)
    sums = {name: torch.zeros_like(p) for name, p in zip(names, parameters, strict=True)}
    for x, y in zip(inputs, targets, strict=True):
        gradients = torch.autograd.grad(functional.cross_entropy(net(x[None]), y[None]), parameters)
        for name, g in zip(names, gradients, strict=True):
            sums[name] += g.square()
    return sums


def check(net, inputs):
    targets = torch.arange(len(inputs)) % CLASSES
    with_float64_loss = lambda z, y: functional.cross_entropy(z, y, reduction="sum")  # noqa: E731
    sums = squared_gradient_sums(net, inputs, targets, with_float64_loss)
    expected = loop(net, inputs, targets)
    assert sums.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(sums[name], expected[name], rtol=1e-10, atol=1e-10 * expected[name].max().item())
        assert expected[name].max() > 0


def rows(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("mode", [True, False])
@pytest.mark.parametrize("net", MODELS)
def test_models_against_a_loop(net, mode):
    """Whatever mode the model was left in; it stays in it, and nothing else changes either."""
    given = model(net).double().train(mode)
    before = copy.deepcopy(given)
    check(given, rows(7, 3, 8, 8))
    assert same_state(given, before)
    assert all(m.training == mode for m in given.modules())


def test_resnet18_against_a_loop():
    net = build_model(ResNet18(width=2), input_shape=(3, 8, 8), classes=CLASSES, seed=0).double()
    check(net, rows(3, 3, 8, 8))


@pytest.mark.parametrize("kind", LAYERS)
def test_layers_against_a_loop(kind):
    inputs = rows(5, 6, 7, 7)
    torch.manual_seed(0)
    net = LAYERS[kind]().double()
    net(inputs)  # gives lazy layers their shape
    check(net, inputs)


def test_token_layers_against_a_loop():
    torch.manual_seed(0)
    tokens = torch.randint(11, (6, 9), generator=torch.Generator().manual_seed(2))
    check(Sequence().double(), tokens)
    ignoring = Sequence().double()
    ignoring.embed.padding_idx = 3
    check(ignoring, tokens)


@pytest.mark.parametrize("net", TEXT_MODELS)
def test_text_models_against_a_loop(net):
    check(model(net).double(), TEXT.forget.inputs)


def test_gpt2_against_a_loop():
    """Tables, positions, attention and normalisation; padding too. A token that no row holds has no gradient."""
    check(model("gpt2").double(), TEXT.retain.inputs[:6])


class Odd(nn.Module):
    """A model of each kind that has no per-sample shortcut."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.first, self.second = kind, nn.Linear(4, 4), nn.Linear(4, 4)
        if kind == "tied":
            self.second.weight = self.first.weight

    def forward(self, x):
        if self.kind == "in place":
            return self.second(self.first(x).relu_())
        return self.second(self.first(self.first(x) if self.kind == "repeated" else x))


@pytest.mark.parametrize("kind", ["tied", "repeated", "in place"])
def test_models_without_a_shortcut_against_a_loop(kind):
    torch.manual_seed(0)
    check(Odd(kind).double(), rows(3, 4))


@pytest.mark.parametrize("settings", [dict(padding="same"), dict(padding=1, padding_mode="reflect")])
def test_unusual_padding_against_a_loop(settings):
    torch.manual_seed(0)
    check(
        nn.Sequential(nn.Conv2d(1, 2, 3, **settings), nn.Flatten(), nn.Linear(32, CLASSES)).double(), rows(2, 1, 4, 4)
    )


@pytest.mark.parametrize("net", MODELS)
@pytest.mark.parametrize("size", [2, 9])
def test_squares_cost_what_gradients_cost(net, size):
    """One forward and one backward pass, whatever the number of rows at once."""
    inputs, targets, given = rows(size, 3, 8, 8).float(), torch.zeros(size, dtype=torch.long), model(net)
    with FlopCounterMode(display=False) as counter:
        squared_gradient_sums(given, inputs, targets)
    assert counter.get_total_flops() == size * sample_pass_flops(given, inputs)


def test_the_square_of_a_batch_gradient():
    net, inputs, targets = model("convnet"), rows(6, 3, 8, 8).float(), torch.arange(6) % CLASSES
    squares = squared_batch_gradient(net, inputs, targets)
    by_hand = copy.deepcopy(net).eval()
    functional.cross_entropy(by_hand(inputs), targets).backward()
    for name, p in by_hand.named_parameters():
        torch.testing.assert_close(squares[name], p.grad.square())
    one = squared_batch_gradient(net, inputs[:1], targets[:1])
    per_sample = squared_gradient_sums(net, inputs[:1], targets[:1])
    for name in one:
        torch.testing.assert_close(one[name], per_sample[name], rtol=1e-4, atol=1e-9)


def per_class(logits, targets):
    """(C,) sums over rows of the loss of each class."""
    return -logits.log_softmax(1).sum(0)


@pytest.mark.parametrize("net", MODELS)
def test_several_losses_at_once_are_the_sum_of_each_alone(net):
    given, inputs, targets = model(net).double(), rows(5, 3, 8, 8), torch.arange(5) % CLASSES
    together = squared_gradient_sums(given, inputs, targets, per_class)
    alone = [
        squared_gradient_sums(given, inputs, targets, lambda z, y, c=c: per_class(z, y)[c]) for c in range(CLASSES)
    ]
    by_hand = [loop(given, inputs, torch.full((5,), c)) for c in range(CLASSES)]
    for name, value in together.items():
        for parts in (alone, by_hand):
            torch.testing.assert_close(value, sum(part[name] for part in parts), rtol=1e-10, atol=1e-14)


def test_several_losses_share_one_forward_pass():
    given, inputs, targets = model("resnet9"), rows(4, 3, 8, 8).float(), torch.zeros(4, dtype=torch.long)
    with FlopCounterMode(display=False) as forward:
        given.eval()(inputs)
    one, all_classes = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with one:
        squared_gradient_sums(given, inputs, targets)
    with all_classes:
        squared_gradient_sums(given, inputs, targets, per_class)
    forward, one, all_classes = (c.get_total_flops() for c in (forward, one, all_classes))
    assert all_classes == forward + CLASSES * (one - forward)


@pytest.mark.parametrize("floats", [1, 500, 4000])
@pytest.mark.parametrize("kind", ["grouped", "strided", "group norm"])
def test_less_memory_gives_the_same_sums_at_the_same_price(monkeypatch, floats, kind):
    torch.manual_seed(0)
    net, inputs, targets = LAYERS[kind](), rows(5, 6, 7, 7).float(), torch.arange(5) % CLASSES
    net(inputs)
    usual, sparing = FlopCounterMode(display=False), FlopCounterMode(display=False)
    with usual:
        expected = squared_gradient_sums(net, inputs, targets)
    monkeypatch.setattr(fisher, "FLOATS", floats)
    with sparing:
        found = squared_gradient_sums(net, inputs, targets)
    assert sparing.get_total_flops() == usual.get_total_flops()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-7)


def test_gradients_of_few_rows_are_in_memory_at_a_time(monkeypatch):
    largest = []
    real = fisher.conv_weight_gradients

    def watched(module, a, g):
        made = real(module, a, g)
        largest.append(max(made.numel(), len(a) * module.weight[0].numel() * module.groups * g[0, 0].numel()))
        return made

    monkeypatch.setattr(fisher, "conv_weight_gradients", watched)
    monkeypatch.setattr(fisher, "FLOATS", 20_000)
    squared_gradient_sums(model("resnet9"), rows(64, 3, 8, 8).float(), torch.zeros(64, dtype=torch.long))
    assert max(largest) <= 20_000
    assert len(largest) > 8


@pytest.mark.parametrize("net", ["mlp", "convnet", "resnet9"])
def test_rows_of_a_pass_fit_into_the_limit(net):
    """Numbers that one row's layer outputs hold, counted in a real pass; twice that with their gradients."""
    given, inputs = model(net), RETAIN.inputs
    counted = []
    handles = [
        layer.register_forward_hook(lambda _, __, out: counted.append(out[0].numel()))
        for layer in given.modules()
        if not list(layer.children())
    ]
    given.eval()(inputs[:1])
    for handle in handles:
        handle.remove()
    row = 2 * sum(counted)
    assert rows_within(given, inputs, 100, limit=7 * row) == rows_within(given, inputs, 100, limit=8 * row - 1) == 7
    assert rows_within(given, inputs, 5, limit=7 * row) == 5
    assert rows_within(given, inputs, 5, limit=1) == 1


def test_choosing_the_rows_computes_nothing():
    given = model("convnet")
    with FlopCounterMode(display=False) as counter:
        assert rows_within(given, RETAIN.inputs, 8) == 8
    assert counter.get_total_flops() == 0


@pytest.mark.parametrize("method", [SSD(chunk=100), FisherForgetting(chunk=100, estimate="expected")])
def test_a_memory_limit_makes_more_and_smaller_updates_of_the_same_price(method, monkeypatch):
    whole = run(method, model("convnet"))
    for name in ("ssd", "fisher_forgetting"):
        monkeypatch.setattr(f"unlearn_core.unlearners.{name}.rows_within", lambda *_: 10)
    parts = run(method, model("convnet"))
    assert parts.rungs[-1].steps > whole.rungs[-1].steps
    assert parts.rungs[-1].flops == pytest.approx(whole.rungs[-1].flops, rel=1e-6)
    for a, b in zip(parts.final.parameters(), whole.final.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-5)
