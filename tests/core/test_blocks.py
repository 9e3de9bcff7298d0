"""Blocks of built-in and of foreign models, in the order of first use."""

import pytest
import torch
from torch import nn

from tests.contracts.tiny import MODELS, TEXT_MODELS, data_for, model
from tests.core.foreign import (
    FunctionalMlp,
    Listed,
    Logits,
    Net,
    Tokens,
    bert,
    gpt2,
    ids,
    images,
    mobilenet,
    resnet18,
    seeded,
    vit,
)
from unlearn_core.structure.blocks import blocks, freeze, last_blocks
from unlearn_core.structure.forward_trace import head_of, traced, used_as_layers


@pytest.mark.parametrize("net", [*MODELS, *TEXT_MODELS])
def test_blocks_of_a_built_in_model_are_its_children(net):
    given = model(net)
    found = blocks(given, data_for(given).retain.inputs[:1])
    assert [block.name for block in found] == [name for name, _ in given.named_children()]
    for block, child in zip(found, given.children(), strict=True):
        assert set(block.parameters) == {f"{block.name}.{own}" for own, _ in child.named_parameters()}
        assert set(block.modules) == {f"{block.name}.{own}".rstrip(".") for own, _ in child.named_modules()}


FOREIGN = {  # how to build it, what it reads, and its blocks
    "functional mlp": (FunctionalMlp, images(), "fc1 fc2 fc3"),
    "registered in another order": (Net, images(), "conv1 norm conv2 head"),
    "module list": (Listed, images(), "layers.0 layers.1 scale head"),
    "wrapped": (lambda: Wrapped(FunctionalMlp()), images(), "inner.fc1 inner.fc2 inner.fc3"),
    "resnet18": (resnet18, images(2, 32), "conv1 bn1 layer1 layer2 layer3 layer4.0 layer4.1 fc"),
    "mobilenet": (mobilenet, images(2, 32), " ".join(f"features.{i}" for i in range(19)) + " classifier"),
    "vit": (
        vit,
        images(2, 16),
        "conv_proj class_token encoder.pos_embedding encoder.layers.encoder_layer_0 "
        "encoder.layers.encoder_layer_1 encoder.layers.encoder_layer_2 encoder.ln heads",
    ),
    "gpt2": (
        gpt2,
        ids(),
        "inner.transformer.wte inner.transformer.wpe inner.transformer.h.0 inner.transformer.h.1 "
        "inner.transformer.h.2 inner.transformer.ln_f inner.score",
    ),
    "bert": (
        bert,
        ids(),
        "inner.bert.embeddings inner.bert.encoder.layer.0 inner.bert.encoder.layer.1 "
        "inner.bert.encoder.layer.2 inner.bert.pooler inner.classifier",
    ),
    "tied": (Tokens, ids(), "words places attention attention.out_proj head"),
}


class Wrapped(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x)


@pytest.mark.parametrize("kind", FOREIGN)
def test_blocks_of_foreign_models(kind):
    build, inputs, names = FOREIGN[kind]
    given = seeded(build)
    found = blocks(given, inputs[:2])
    assert [block.name for block in found] == names.split()
    held = [name for block in found for name in block.parameters]
    assert sorted(held) == sorted(name for name, _ in given.named_parameters()), "each parameter is in one block"
    inside = [name for block in found for name in block.modules]
    assert len(inside) == len(set(inside))


@pytest.mark.parametrize("kind", ["resnet18", "mobilenet", "vit", "gpt2", "bert"])
def test_every_parameter_that_gets_a_gradient_is_seen_in_use(kind):
    build, inputs, _ = FOREIGN[kind]
    given = seeded(build).eval()
    given(inputs).sum().backward()
    used = {step.parameter for step in traced(given, inputs[:2])}
    assert {name for name, p in given.named_parameters() if p.grad is not None} <= used


def test_modules_without_parameters_belong_to_the_block_before_them():
    first, *_, last = blocks(Net(), images())
    assert first.modules == ("conv1",)
    assert "drop" in blocks(Net(), images())[1].modules
    assert last.modules == ("head",)


def test_layers_that_are_used_again_leave_no_children_in_order():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
            self.b = nn.Linear(4, 4)

        def forward(self, x):
            return self.b(self.a[1](self.b(self.a[0](x))))

    assert [block.name for block in blocks(Twice(), torch.zeros(1, 4))] == ["a.0", "b", "a.1"]


def test_unused_parameters_are_in_the_first_block():
    net = FunctionalMlp()
    net.spare = nn.Linear(2, 2)
    first, *rest = blocks(net, images())
    assert first.name == "fc1" and set(first.modules) == {"spare", "fc1"}
    assert not any("spare" in name for block in rest for name in block.parameters)


def test_frozen_blocks_do_not_count():
    net = FunctionalMlp()
    net.fc2.requires_grad_(False)
    frozen, tuned = last_blocks(net, images(), 2)
    assert [b.name for b in tuned] == ["fc1", "fc3"]
    assert [b.name for b in frozen] == ["fc2"]


def test_freezing_is_undone():
    net = Net().train()
    net.conv2.requires_grad_(False)
    flags, modes = [p.requires_grad for p in net.parameters()], [m.training for m in net.modules()]
    before, found = net.norm.running_mean.clone(), blocks(net, images())
    with freeze(net, found[:3]):
        loss = net(images()).sum()
    assert [p.requires_grad for p in net.parameters()] == flags
    assert [m.training for m in net.modules()] == modes
    assert torch.equal(net.norm.running_mean, before)
    loss.backward()
    assert {name for name, p in net.named_parameters() if p.grad is not None} == {"head.weight", "head.bias"}


def test_a_trace_changes_nothing():
    net = Net().train()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    blocks(net, images())
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(m.training and not m._forward_hooks and not m._forward_pre_hooks for m in net.modules())


def test_layers_whose_weights_go_elsewhere_are_told_apart():
    net = Tokens()
    layers = {name: m for name, m in net.named_modules() if isinstance(m, nn.Linear)}
    assert set(layers) == {"attention.out_proj", "out", "head"}
    assert used_as_layers(net, layers, ids()) == ["head"]
    assert head_of(net, ids()) == "head"
    assert head_of(Logits(seeded(bert).inner), ids()) == "inner.classifier"
