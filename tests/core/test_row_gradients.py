"""Sums over per-sample gradients of foreign models against a loop over single rows, and what they are charged."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from tests.core.foreign import (
    CLASSES,
    FunctionalMlp,
    Net,
    Recurrent,
    Tokens,
    WithRms,
    bert,
    gpt2,
    ids,
    images,
    mobilenet,
    resnet18,
    seeded,
    vit,
)
from unlearn_core.gradients import fisher
from unlearn_core.gradients.fisher import squared_gradient_sums
from unlearn_core.gradients.row_gradients import rows_within
from unlearn_core.unlearners.fisher_forgetting import expected_losses
from unlearn_core.unlearners.importance import absolute_gradient_sums, norms

MODELS = {
    "functional": (Net, images()),
    "position embeddings and ties": (Tokens, ids()),
    "rms norm": (WithRms, images()),
    "tuple output": (Recurrent, images()),
    "resnet18": (resnet18, images(5, 32)),
    "mobilenet": (mobilenet, images(5, 32)),
    "vit": (vit, images(5, 16)),
    "gpt2": (gpt2, ids()),
    "bert": (bert, ids()),
}
every_model = pytest.mark.parametrize("kind", MODELS)


def looped(net, inputs, of, loss):
    """of(gradient) summed over single rows, in evaluation mode."""
    net = copy.deepcopy(net).eval()
    free = {name: p for name, p in net.named_parameters() if p.requires_grad}
    sums = {name: torch.zeros_like(p) for name, p in free.items()}
    for number in range(len(inputs)):
        for value in loss(net(inputs[number : number + 1]), number).view(-1):
            parts = torch.autograd.grad(value, list(free.values()), retain_graph=True, allow_unused=True)
            for total, part in zip(sums.values(), parts, strict=True):
                if part is not None:
                    total += of(part)
    return sums


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    largest = max(value.max() for value in expected.values())
    assert largest > 0
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=2e-3, atol=1e-6 * largest.item())


@pytest.mark.slow
@every_model
def test_squares_and_absolutes_are_those_of_single_rows(kind):
    build, inputs = MODELS[kind]
    net, targets = seeded(build).train(), torch.arange(len(inputs)) % CLASSES

    def own(logits, number):
        return functional.cross_entropy(logits, targets[number : number + 1])

    assert_same(squared_gradient_sums(net, inputs, targets), looped(net, inputs, torch.square, own))
    lengths = looped(net, inputs, torch.abs, lambda logits, _: norms(logits))
    assert_same(absolute_gradient_sums(net, inputs, norms), lengths)
    assert all(m.training for m in net.modules())


@pytest.mark.parametrize("kind", ["functional", "position embeddings and ties", "tuple output"])
def test_several_losses_of_a_row(kind):
    build, inputs = MODELS[kind]
    net = seeded(build)
    found = squared_gradient_sums(net, inputs, torch.zeros(len(inputs), dtype=torch.long), expected_losses)
    assert_same(found, looped(net, inputs, torch.square, lambda z, _: expected_losses(z, None)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["functional", "position embeddings and ties", "tuple output", "resnet18"])
def test_the_charge_is_that_of_a_batch_gradient(kind):
    build, inputs = MODELS[kind]
    net, targets = seeded(build).eval(), torch.zeros(len(inputs), dtype=torch.long)
    with FlopCounterMode(display=False) as plain:
        functional.cross_entropy(net(inputs), targets).backward()
    for _ in range(2):  # the first call finds out the way, which is not charged
        with FlopCounterMode(display=False) as counter:
            squared_gradient_sums(net, inputs, targets)
        assert counter.get_total_flops() == plain.get_total_flops()


def chosen(net):
    (way,) = fisher.WAYS[net].values()
    return getattr(way, "func", way).__qualname__.partition(".")[0]


def test_the_first_way_that_is_right_is_taken_once_for_each_model(monkeypatch):
    tried = []
    real = fisher.first_that_agrees
    monkeypatch.setattr(fisher, "first_that_agrees", lambda *a: tried.append(1) or real(*a))
    expected = {FunctionalMlp: "by_layers", Tokens: "batched", Recurrent: "alone"}
    for build, way in expected.items():
        net, inputs = seeded(build), ids() if build is Tokens else images()
        for _ in range(3):
            squared_gradient_sums(net, inputs, torch.zeros(len(inputs), dtype=torch.long))
        assert chosen(net) == way
    assert len(tried) == 3


def test_as_many_rows_as_positions_hide_nothing():
    """A layer that sees positions in the place of rows has the right number of them by chance."""
    net, inputs = seeded(lambda: Tokens(tied=False)), ids(6)
    assert len(inputs) == inputs.shape[1]
    targets = torch.arange(6) % CLASSES
    own = looped(net, inputs, torch.square, lambda z, n: functional.cross_entropy(z, targets[n : n + 1]))
    assert_same(squared_gradient_sums(net, inputs, targets), own)


def test_frozen_parameters_have_no_sum():
    net = seeded(Net)
    net.conv1.requires_grad_(False)
    found = squared_gradient_sums(net, images(), torch.zeros(6, dtype=torch.long))
    assert found.keys() == {name for name, p in net.named_parameters() if p.requires_grad}
    assert "conv1.weight" not in found


def test_rows_that_mix_have_no_gradient_of_their_own():
    mixing = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten())
    with pytest.raises(NotImplementedError, match="rows do not mix"):
        squared_gradient_sums(mixing, images(), torch.zeros(6, dtype=torch.long))


@every_model
def test_the_rows_of_a_pass_are_found_for_any_model(kind):
    """Masks that read values, and layers that give tuples."""
    build, inputs = MODELS[kind]
    assert rows_within(seeded(build), inputs, 3) == 3
    assert rows_within(seeded(build), inputs, 3, limit=1) == 1


class Whispering(nn.Module):
    """A layer whose weight another function uses, too; what comes of both is next to nothing."""

    def __init__(self):
        super().__init__()
        self.into, self.layer, self.head = nn.Linear(192, 8), nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x):
        h = torch.tanh(self.into(x.flatten(1)))
        return self.head(h + 1e-6 * torch.tanh(self.layer(h) + functional.linear(h, self.layer.weight)))


def test_what_a_layer_does_not_see_counts_however_small():
    net, x, y = seeded(Whispering), images(), torch.tensor([0, 1, 2, 3, 0, 1])
    found = squared_gradient_sums(net, x, y)["layer.weight"]
    expected = torch.zeros_like(found)
    for row, target in zip(x.split(1), y.split(1), strict=True):
        expected += torch.autograd.grad(functional.cross_entropy(net(row), target), net.layer.weight)[0] ** 2
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * float(expected.max()))
