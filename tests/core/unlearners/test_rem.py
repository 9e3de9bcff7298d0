"""REM: the extra units, their masks, the two phases, and that nothing of the units is left."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.contracts.tiny import (
    CPU,
    DATA,
    FORGET,
    RETAIN,
    SHAPE,
    model,
    run,
    same_parameters,
    same_state,
    task,
    weights,
)
from unlearn_core.checks import InputError
from unlearn_core.models import Gpt2, ResNet18, build_model
from unlearn_core.seeding import Streams
from unlearn_core.training import batches
from unlearn_core.unlearners import GD, NPO, REM, rem
from unlearn_core.unlearners.expansion import Expansion, draw_masks

every_model = pytest.mark.parametrize("net", ["mlp", "convnet", "resnet9"])
SETTINGS = dict(lr=0.02, epochs=2, batch_size=16, npo_lr=0.02, npo_batch_size=4, npo_epochs=2, widen=2.0, gamma=0.0)


def ones(expansion, rows):
    return torch.ones(rows, expansion.units, dtype=torch.bool)


def randomised(expansion):
    """As after training: the output weights are no longer zero."""
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in expansion.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=random))
    return expansion


def families():
    """(model, inputs) of every family that has hidden layers."""
    ids = torch.randint(11, (9, 6), generator=torch.Generator().manual_seed(0))
    gpt2 = build_model(Gpt2(layers=1, width=8, heads=2), input_shape=(6, 11), classes=4, seed=0)
    resnet18 = build_model(ResNet18(width=2), input_shape=SHAPE, classes=4, seed=0)
    return [(model(net), FORGET.inputs) for net in ("mlp", "convnet", "resnet9")] + [
        (resnet18, FORGET.inputs),
        (gpt2, ids),
    ]


@pytest.mark.parametrize("net, inputs", families(), ids=["mlp", "convnet", "resnet9", "resnet18", "gpt2"])
def test_logits_at_insertion_are_the_models_and_dropping_is_exact(net, inputs):
    net.eval()
    before, logits = copy.deepcopy(net.state_dict()), net(inputs)
    expansion = Expansion(net, inputs, share=0.5, seed=1)
    with expansion.active(ones(expansion, 9)):
        assert torch.equal(net(inputs), logits)
    randomised(expansion)
    with expansion.active(ones(expansion, 9)):
        assert not torch.allclose(net(inputs), logits)
    with expansion.active(~ones(expansion, 9)):
        assert torch.equal(net(inputs), logits), "a row that uses no unit sees none"
    assert torch.equal(net(inputs), logits)
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks for module in net.modules())


def test_a_branch_by_hand():
    """Hidden units that a row's mask leaves on are added to those of the layer, by their own weights."""
    net = model("mlp")
    expansion = randomised(Expansion(net, FORGET.inputs, share=0.5, seed=1))
    assert expansion.units == 3
    mask = torch.rand(9, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    x, first, head = FORGET.inputs.flatten(1), net[0][1], net[1]
    into, out = expansion.branches[0].into, expansion.branches[0].out
    extra = (functional.relu(x @ into.weight.T + into.bias) * mask) @ out.weight.T
    expected = functional.relu(x @ first.weight.T + first.bias + extra) @ head.weight.T + head.bias
    with expansion.active(mask):
        torch.testing.assert_close(net(FORGET.inputs), expected)


@every_model
def test_a_row_depends_on_no_other_rows_mask(net):
    tried = model(net).eval()
    expansion = randomised(Expansion(tried, FORGET.inputs, share=0.5, seed=1))
    mask = draw_masks(9, expansion.units, density=0.5, random=torch.Generator().manual_seed(0))
    with expansion.active(mask):
        whole = tried(FORGET.inputs)
    for row in range(9):
        with expansion.active(mask[row : row + 1]):
            torch.testing.assert_close(tried(FORGET.inputs[row : row + 1])[0], whole[row], rtol=1e-4, atol=1e-5)


def test_one_mask_for_the_forget_set_and_one_for_each_other_row():
    masks = REM(density=0.3)._masks(task(model()), 400)
    assert masks.shape == (50, 400)
    assert (masks[41:] == masks[41]).all()
    assert len(masks[:42].unique(dim=0)) == 42
    assert masks[:42].float().mean() == pytest.approx(0.3, abs=5 * (0.21 / (42 * 400)) ** 0.5)
    assert torch.equal(masks, REM(density=0.3)._masks(task(model()), 400))
    assert not torch.equal(masks, REM(density=0.3)._masks(task(model(), seed=1), 400))


@pytest.fixture
def made(monkeypatch):
    """The expansions and references that runs make."""
    kept = SimpleNamespace(expansions=[], references=[])

    def expand(*arguments, **settings):
        kept.expansions.append(Expansion(*arguments, **settings))
        return kept.expansions[-1]

    def deepcopy(net):
        kept.references.append(copy.deepcopy(net))
        return kept.references[-1]

    monkeypatch.setattr(rem, "Expansion", expand)
    monkeypatch.setattr(rem, "copy", SimpleNamespace(deepcopy=deepcopy))
    return kept


@every_model
@pytest.mark.parametrize("bn", ["train", "frozen"])
def test_phases_change_what_is_theirs(net, bn, made):
    """NPO moves θ1 alone; the fine-tuning moves both; the reference rests; the architecture never changes."""
    tried, start, before, phases = model(net), model(net).state_dict(), None, []
    for update in REM(**SETTINGS, bn=bn, weight_decay=0.1).updates(task(tried)):
        (expansion,) = made.expansions
        before = copy.deepcopy(expansion) if before is None else before
        phases.append(update.phase)
        if "redirect" not in phases[:-1]:
            assert same_state(expansion, before), "θ2 moved"
        assert {k: v.shape for k, v in tried.state_dict().items()} == {k: v.shape for k, v in start.items()}
        assert not any(module._forward_hooks for module in tried.modules())
    assert list(dict.fromkeys(phases)) == ["probe", "npo", "redirect"]
    assert all(not torch.equal(a, b) for a, b in zip(expansion.parameters(), before.parameters(), strict=True))
    assert same_state(made.references[0], model(net))
    assert not same_parameters(tried, model(net))


@every_model
def test_npo_is_that_of_the_method_of_this_name(net):
    """Up to the fine-tuning, one pass at a time on the same batches."""
    tried, other = model(net), model(net)
    method = REM(**SETTINGS | dict(npo_epochs=1, npo_batch_size=9), beta=0.7, momentum=0.0)
    for update in method.updates(task(tried)):
        if update.phase == "redirect":
            break
    alone = NPO(lr=0.02, epochs=1, batch_size=9, beta=0.7, retain_weight=0.0, momentum=0.0, weight_decay=5e-4)
    torch.testing.assert_close(weights(tried), weights(run(alone, other).final), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("gamma, passes", [(1.0, 0), (0.0, 2)])
def test_npo_ends_where_the_forget_set_is_no_longer_known(gamma, passes):
    phases = [u.phase for u in REM(**SETTINGS | dict(gamma=gamma)).updates(task(model()))]
    assert phases.count("npo") == 2 * passes  # batches of 4 and 5 rows
    assert phases.count("probe") == max(1, passes)
    assert phases.count("redirect") == 2 * 4


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_one_step_of_redirection_is_the_gradient_of_its_loss(weight, made):
    """All rows in one batch: CE(θ1 ∪ θ2; D) + w NPO(θ1; D_f), where NPO's gradient at θ0 is that of ascent."""
    settings = dict(npo_epochs=0, epochs=1, batch_size=50, momentum=0.0, weight_decay=0.0, lr=0.1)
    end = run(REM(**settings, npo_weight=weight, widen=0.5), model()).final
    net = model().eval()
    loss = functional.cross_entropy(
        net(torch.cat([RETAIN.inputs, FORGET.inputs])), torch.cat([RETAIN.targets, FORGET.targets])
    )
    loss = loss - weight * functional.cross_entropy(net(FORGET.inputs), FORGET.targets)
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])
    torch.testing.assert_close(weights(end), weights(model()) - 0.1 * gradient, rtol=1e-4, atol=1e-6)
    (expansion,) = made.expansions
    assert expansion.branches[0].out.weight.any(), "the units learn nothing"


def test_a_pass_adds_up_to_the_mean_over_the_forget_set(monkeypatch):
    """At step size 0 and without CE, NPO's terms of all batches are that of the whole set, weighted by rows."""
    seen = []
    monkeypatch.setattr(REM, "_widened_loss", lambda self, model, *_: 0 * weights(model).sum())
    monkeypatch.setattr(REM, "_npo", lambda self, model, reference, inputs, targets: seen.append(len(inputs)) or 1.0)
    monkeypatch.setattr(rem, "descend", lambda stream, loss, *_, **__: [seen.append(loss(b)) or b for b in stream])
    list(REM(npo_epochs=0, epochs=1, batch_size=8).updates(task(model())))
    stream = batches(rem.joined(*DATA), 8, Streams(0, CPU), "redirect", epochs=[0])
    sizes = [len(batch[1]) for batch in stream]
    terms = [value for value in seen if isinstance(value, torch.Tensor)]
    assert sum(size * term for size, term in zip(sizes, terms, strict=True)).item() == pytest.approx(50)


@pytest.mark.parametrize("net", ["convnet", "resnet9"])
def test_statistics_are_those_of_the_model_without_the_units(net, monkeypatch):
    """Frozen: untouched. Training: of the retain rows through θ1 alone, whatever the units do."""
    settings = SETTINGS | dict(lr=0.0, npo_epochs=0, epochs=1, batch_size=100)
    assert same_state(run(REM(**settings, bn="frozen"), model(net)).final, model(net))
    monkeypatch.setattr(rem, "Expansion", lambda *a, **k: randomised(Expansion(*a, **k)))
    end, by_hand = run(REM(**settings, bn="train"), model(net)).final, model(net).train()
    by_hand(RETAIN.inputs)
    expected = dict(by_hand.named_buffers())
    for name, value in end.named_buffers():
        if "tracked" not in name:
            torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("share, units", [(0.5, 3), (2.0, 12), (0.01, 1)])
def test_cost_of_each_phase_in_closed_form(share, units):
    """FLOPs per row of the network 192-6-4, whose first layer passes no gradient on, with `units` beside it."""
    forward = 2 * (192 * 6 + 6 * 4)
    training = forward + 2 * (192 * 6 + 2 * 6 * 4)
    extra = 2 * (2 * 192 * units + 3 * units * 6)
    method = REM(**SETTINGS | dict(widen=share, gamma=0.0))
    spent = run(method, model()).rungs[0].flops
    probes, npo = 2 * 9 * forward, 2 * 9 * (training + forward)
    redirect = 2 * (50 * (training + extra) + 9 * (training + forward))
    assert spent == pytest.approx(probes + npo + redirect, rel=0.01)


def test_tracking_statistics_is_charged():
    """One more forward pass of the retain rows in every pass."""
    settings = SETTINGS | dict(npo_epochs=0, epochs=3)
    frozen, train = (run(REM(**settings, bn=bn), model("convnet")).rungs[0].flops for bn in ("frozen", "train"))
    row = run(GD(epochs=1, batch_size=16), model("convnet")).rungs[0].flops / len(RETAIN)
    assert 0.2 * row < (train - frozen) / (3 * len(RETAIN)) < 0.5 * row


def test_models_without_a_hidden_layer_are_refused():
    with pytest.raises(InputError, match="no hidden layer"):
        run(REM(), model("linear"))


def test_branches_have_the_shape_of_their_layer():
    """Stride, padding, dilation and groups of the convolution they stand beside."""
    conv = nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 4), dilation=(1, 2), groups=2)
    net = nn.Sequential(conv, nn.Flatten(), nn.LazyLinear(3))
    inputs = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    net(inputs)
    expansion = randomised(Expansion(net, inputs, share=0.5, seed=0))
    with expansion.active(ones(expansion, 5)):
        assert net(inputs).shape == (5, 3)


@pytest.mark.parametrize(
    "wrong", [dict(gamma=1.1), dict(widen=0.0), dict(density=2.0), dict(beta=0.0), dict(npo_epochs=-1)]
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        REM(**wrong)
