"""UNSC: the bases against a decomposition of the stacked inputs, and what projected steps leave alone."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from tests.contracts.tiny import (
    CLASSES,
    DATA,
    FORGET,
    RETAIN,
    TEXT,
    Forbidden,
    examples,
    model,
    run,
    same_parameters,
    same_state,
    task,
    weights,
)
from tests.core.unlearners.parts import collected, layers_of
from tests.core.unlearners.quadratic import Point
from unlearn_core.checks import InputError
from unlearn_core.models import ConvNet, build_model
from unlearn_core.scenarios.scenario import Split
from unlearn_core.unlearners import UNSC
from unlearn_core.unlearners.null_space import Products, Rows, add_inputs, begun, grown, layer_inputs
from unlearn_core.unlearners.unsc import project_gradients, projected_layers

SETTINGS = dict(lr=0.1, epochs=10, batch_size=4, momentum=0.9)
every_net = pytest.mark.parametrize("net", ["linear", "mlp", "convnet", "resnet9", "gpt2"])


def rows_for(net):
    return TEXT if net == "gpt2" else DATA


def bases(net, data=None, *, seed=0, **settings):
    given = task(net, data, seed=seed)
    return collected(UNSC(**settings)._bases(given, layers_of(net)))


def inputs_seen(net, inputs):
    """Each layer's input vectors, (in, k) float64, in evaluation mode."""
    net, seen = copy.deepcopy(net).eval(), []
    for layer in layers_of(net):
        layer.register_forward_pre_hook(lambda m, args: seen.append(layer_inputs(m, args[0]).T.double()))
    net(inputs)
    return seen


def gaussian(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(7, 3),
        nn.Conv2d(2, 3, 3, padding=1),
        nn.Conv2d(2, 3, (3, 2), stride=2),
        nn.Conv2d(2, 3, 2, stride=(1, 3), padding=(0, 1), dilation=2, bias=False),
        nn.Conv2d(2, 3, 1),
    ],
    ids=str,
)
def test_a_layer_is_its_weight_times_its_input_vectors(layer):
    """Stride, padding and dilation match those of the layer."""
    a = torch.randn(4, *((7,) if isinstance(layer, nn.Linear) else (2, 7, 7)))
    product = layer_inputs(layer, a) @ layer.weight.flatten(1).T
    bias = layer.bias if layer.bias is not None else 0.0
    if isinstance(layer, nn.Linear):
        torch.testing.assert_close(product + bias, layer(a))
        return
    expected = layer(a)
    torch.testing.assert_close(product + bias, expected.permute(0, 2, 3, 1).flatten(0, 2), rtol=1e-4, atol=1e-5)


def residual(basis, a):
    return a - basis @ (basis.T @ a)


def products(a):
    return Products(a @ a.T)


def as_rows(a):
    return Rows(a.T)


either_form = pytest.mark.parametrize("form", [products, as_rows])


@either_form
@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.9, 0.999, 1.0])
def test_a_basis_is_the_left_singular_vectors_of_what_is_left(gamma, form):
    """Class by class, by singular value decompositions of the stacked inputs."""
    classes = [gaussian(12, 5, seed=s) @ gaussian(5, 30, seed=s + 9) * torch.linspace(1, 9, 30) for s in range(3)]
    basis, slow = gaussian(12, 0), gaussian(12, 0)
    for a in classes:
        basis = grown(basis, form(a), gamma)
        u = torch.linalg.svd(residual(slow, a)).U
        for k in range(13):
            candidate = torch.cat([slow, u[:, :k]], dim=1)
            if 1 - residual(candidate, a).square().sum() / a.square().sum() >= gamma - 1e-12:
                break
        slow = candidate
        assert basis.shape == slow.shape
        torch.testing.assert_close(basis @ basis.T, slow @ slow.T, rtol=0, atol=1e-7)
        torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1]).double(), rtol=0, atol=1e-12)
    assert (gamma > 0) == (basis.shape[1] > 0)


@either_form
def test_inputs_of_low_rank_leave_room_even_if_all_their_energy_is_held(form):
    a = gaussian(12, 4) @ gaussian(4, 50, seed=1)
    basis = grown(gaussian(12, 0), form(a), 1.0)
    assert basis.shape == (12, 4)
    assert residual(basis, a).norm() < 1e-7 * a.norm()
    again = grown(basis, form(a), 1.0)
    assert torch.equal(again, basis)


def test_inputs_without_finite_energy_add_nothing():
    for value in (0.0, torch.nan, torch.inf):
        for form in (Products, Rows):
            assert grown(gaussian(5, 0), form(torch.full((5, 5), value).double()), 0.9).shape == (5, 0)


@pytest.mark.parametrize("gamma", [0.5, 0.97, 1.0])
def test_both_decompositions_give_the_same_projection(gamma):
    """Of directions whose energies lie ten orders of magnitude apart, and of a second class beside the first."""
    bases = {form: gaussian(40, 0) for form in (products, as_rows)}
    for seed in (0, 1):
        a = gaussian(40, 9, seed=seed) * torch.logspace(0, -4, 9).double()
        for form, basis in bases.items():
            bases[form] = grown(basis, form(a), gamma)
    first, second = bases.values()
    assert first.shape == second.shape and first.shape[1] > 1
    torch.testing.assert_close(first @ first.T, second @ second.T, rtol=0, atol=1e-6)
    torch.testing.assert_close(second.T @ second, torch.eye(second.shape[1]).double(), rtol=0, atol=1e-12)


@every_net
def test_the_smaller_matrix_is_decomposed(net):
    """Of A Aᵀ and Aᵀ A, however the rows come in; their energy is the same."""
    corrupted, data = model(net), rows_for(net).retain
    layers, seen = layers_of(corrupted), {}
    for part in (data.inputs[:3], data.inputs[3:8]):
        add_inputs(corrupted, layers, seen, part, total=8)
    for number, a in enumerate(inputs_seen(corrupted, data.inputs[:8])):
        found = seen[number]
        assert min(found.principal()[0].shape) == min(a.shape)
        assert isinstance(found, Rows) == (a.shape[1] <= a.shape[0])
        assert found.energy == pytest.approx(a.square().sum().item(), rel=1e-9)


def test_as_many_inputs_as_they_are_long_are_kept_as_they_are():
    a = gaussian(6, 6)
    assert isinstance(begun(a[:2], 6), Rows) and isinstance(begun(a[:2], 7), Products)


@every_net
@pytest.mark.parametrize("gamma", [0.5, 0.97])
def test_each_class_keeps_the_share_of_its_energy(net, gamma):
    data, corrupted = rows_for(net), model(net)
    found = bases(corrupted, data, gamma=gamma, rows_per_class=1000, chunk=3)
    for label in data.retain.targets.unique():
        seen = inputs_seen(corrupted, data.retain.inputs[data.retain.targets == label])
        for basis, a in zip(found, seen, strict=True):
            assert 1 - residual(basis, a).square().sum() / a.square().sum() >= gamma - 1e-6


def test_projection_against_an_explicit_projector():
    net = build_model(ConvNet(width=2), input_shape=(3, 8, 8), classes=CLASSES, seed=0)
    functional.cross_entropy(net(FORGET.inputs), FORGET.targets).backward()
    layers = layers_of(net)
    found = [torch.linalg.qr(gaussian(layer.weight[0].numel(), 5)).Q for layer in layers]
    before = [layer.weight.grad.clone() for layer in layers]
    project_gradients(net, layers, found)
    for layer, u, g in zip(layers, found, before, strict=True):
        projector = torch.eye(len(u)).double() - sum(torch.outer(column, column) for column in u.T)
        expected = torch.stack([projector @ row.flatten() for row in g.double()]).view_as(g)
        torch.testing.assert_close(layer.weight.grad.double(), expected, rtol=1e-4, atol=1e-7)
    kept = {id(layer.weight) for layer in layers}
    assert all((p.grad is None) == (id(p) not in kept) for p in net.parameters())


@every_net
@pytest.mark.parametrize("epochs", [1, 40])
def test_no_change_acts_on_what_the_basis_holds(net, epochs):
    """(ΔW) U = 0 for every layer, after any number of steps, with momentum; everything else is as it was."""
    start, data = model(net), rows_for(net)
    settings = SETTINGS | dict(epochs=epochs, gamma=0.9, rows_per_class=3)
    end = run(UNSC(**settings), start, data).final
    trained, moved = set(), False
    for a, b, u in zip(layers_of(start), layers_of(end), bases(start, data, **settings), strict=True):
        change = (b.weight - a.weight).detach().flatten(1).double()
        assert (change @ u).norm() <= 1e-5 * max(change.norm(), a.weight.norm())
        trained.add(id(b.weight))
        moved |= bool(change.norm() > 1e-3)
    assert moved
    assert all(same for p, q in zip(start.parameters(), end.parameters(), strict=True)
               if id(q) not in trained for same in [torch.equal(p, q)])  # fmt: skip
    assert all(torch.equal(p, q) for p, q in zip(start.buffers(), end.buffers(), strict=True))


FEW = Split(RETAIN.rows(torch.arange(4)), FORGET)


@pytest.mark.parametrize("net", ["linear", "mlp"])
def test_retained_logits_stay_where_retained_inputs_lie_in_the_span(net):
    """Four rows of 192 inputs; six hidden units hold them in four directions. All energy is held."""
    start = model(net)
    end = run(UNSC(**SETTINGS | dict(epochs=40), gamma=1.0), start, FEW).final
    torch.testing.assert_close(end(FEW.retain.inputs), start(FEW.retain.inputs), rtol=1e-3, atol=1e-4)
    assert (end(FORGET.inputs) - start(FORGET.inputs)).abs().max() > 0.5
    free = run(UNSC(**SETTINGS | dict(epochs=40), gamma=0.0), start, FEW).final
    assert (free(FEW.retain.inputs) - start(FEW.retain.inputs)).abs().max() > 0.5


def test_retained_logits_of_a_convolutional_network_stay():
    net = build_model(ConvNet(width=8), input_shape=(3, 8, 8), classes=CLASSES, seed=0)
    one = Split(examples(1, seed=3), FORGET)
    end = run(UNSC(**SETTINGS | dict(epochs=40), gamma=1.0), net, one).final
    logits = net.eval()(one.retain.inputs)
    torch.testing.assert_close(end.eval()(one.retain.inputs), logits, rtol=1e-3, atol=1e-4)
    assert not same_parameters(end, net)


def test_with_all_energy_and_more_rows_than_inputs_nothing_moves():
    many = Split(examples(900, shape=(3, 8, 8)), FORGET)
    start = model("linear")
    end = run(UNSC(**SETTINGS, gamma=1.0, rows_per_class=900), start, many).final
    torch.testing.assert_close(weights(end), weights(start), rtol=0, atol=1e-5)
    free = run(UNSC(**SETTINGS, gamma=0.5, rows_per_class=900), start, many).final
    assert (weights(free) - weights(start)).abs().max() > 1e-2


@every_net
def test_without_a_basis_it_is_training_without_projection(net):
    """Bit for bit plain SGD on the weights of linear and convolutional layers, in evaluation mode."""
    data, start = rows_for(net), model(net)
    by_hand = copy.deepcopy(start).eval()
    end = run(UNSC(**SETTINGS, gamma=0.0), start, data).final
    labels = runner_up(by_hand, data.forget)
    chosen = [layer.weight for layer in layers_of(by_hand)]
    optimizer, given = torch.optim.SGD(chosen, lr=0.1, momentum=0.9, fused=True), task(by_hand, data)
    for epoch in range(10):
        order = torch.randperm(9, generator=given.rng("forget", epoch))
        for rows in (order[:4], order[4:]):  # a last batch of one row joins the one before it
            optimizer.zero_grad()
            functional.cross_entropy(by_hand(data.forget.inputs[rows]), labels[rows]).backward()
            optimizer.step()
    assert same_state(end, by_hand)


def runner_up(net, rows):
    """For each row the class of largest logit among those that are not its label, one row at a time."""
    answers = []
    for x, y in zip(rows.inputs, rows.targets.tolist(), strict=True):
        logits = net(x[None])[0].tolist()
        answers.append(max((c for c in range(CLASSES) if c != y), key=lambda c: logits[c]))
    return torch.tensor(answers)


@pytest.mark.parametrize("labels", ["pseudo", "random"])
def test_new_labels_are_never_the_old_ones(labels):
    made = collected(UNSC(labels=labels, batch_size=4)._new_labels(task(model())))
    assert (made != FORGET.targets).all()
    assert torch.equal(made, runner_up(model().eval(), FORGET)) == (labels == "pseudo")


def test_labels_of_the_forget_set_are_unlearned():
    start = model("convnet")
    settings = SETTINGS | dict(epochs=30)
    before, after = (
        net.eval()(FORGET.inputs).softmax(1).gather(1, FORGET.targets[:, None]).mean().item()
        for net in (start, run(UNSC(**settings, gamma=0.9, rows_per_class=3), start).final)
    )
    assert after < 0.7 * before


def test_the_model_rests_while_bases_and_labels_are_made():
    net = model("convnet")
    for update in UNSC(**SETTINGS).updates(task(net)):
        if update.phase == "forget":
            break
        assert same_state(net, model("convnet"))
    assert same_state(net, model("convnet"))


def charged(rows_per_class):
    """What a run is charged, and what its bases and steps alone are by their widths, on a layer of 192 inputs."""
    start, settings = model("linear"), SETTINGS | dict(gamma=0.9, rows_per_class=rows_per_class, chunk=2)
    phases = {"activations": 0, "labels": 0, "forget": 0}
    for update in UNSC(**settings).updates(task(start)):
        size = update.size[0] if isinstance(update.size, tuple) else update.size
        phases[update.phase] = phases.get(update.phase, 0) + (size or 1)
    assert phases["activations"] == rows_per_class * CLASSES
    assert phases["labels"] == len(FORGET)
    assert phases["forget"] == 10 * len(FORGET)
    widths = [0] + [
        bases(start, Split(of_labels(label + 1, rows_per_class), FORGET), **settings)[0].shape[1]
        for label in range(CLASSES)
    ]
    return run(UNSC(**settings), start).rungs[0].flops, widths


def test_bases_and_labels_are_charged():
    """A forward pass for each row, the Gram matrix of a class, a forward pass for each label; then projected steps."""
    spent, widths = charged(3)
    forward, growth = 2 * 192 * CLASSES, 0
    for before, after in itertools.pairwise(widths):
        new = after - before
        growth += 2 * 2 * 3 * 192 * before  # what the basis leaves of three rows
        growth += 2 * 3 * 3 * 192 + 9 * 3**3 + 2 * 3 * 3 * 192  # products, eigenvectors, and the directions they mean
        growth += 2 * 2 * 192 * before * new + 4 * 192 * new * new  # orthogonalisation
    steps = 10 * 2 * 4 * CLASSES * 192 * widths[-1]
    assert spent == 12 * forward + growth + 9 * forward + 90 * 2 * forward + steps


def test_products_of_inputs_are_charged_where_they_are_many():
    start, many = model("linear"), Split(examples(900, shape=(3, 8, 8)), FORGET)
    settings = SETTINGS | dict(gamma=0.0, rows_per_class=200, chunk=50)
    spent = run(UNSC(**settings), start, many).rungs[0].flops
    forward = 2 * 192 * CLASSES
    assert spent == 800 * (forward + 2 * 192 * 192) + 9 * forward + 90 * 2 * forward


def of_labels(count, rows):
    """The retain set, with rows of other than the first labels moved to where no one looks."""
    order = torch.randperm(len(RETAIN), generator=task(model()).rng("sample"))
    kept = order[RETAIN.targets[order] < count]
    chosen = torch.cat([kept[RETAIN.targets[kept] == label][:rows] for label in range(count)])
    return RETAIN.rows(chosen)


def test_rows_of_a_class_are_a_random_sample_of_it():
    ends = [bases(model("linear"), gamma=1.0, rows_per_class=3, seed=s)[0] for s in (0, 0, 1)]
    assert torch.equal(ends[0], ends[1])
    assert not torch.allclose(ends[0] @ ends[0].T, ends[2] @ ends[2].T)


def test_embeddings_are_frozen():
    start = model("gpt2")
    end = run(UNSC(**SETTINGS, gamma=0.5, rows_per_class=2), start).final
    assert same_parameters(start.embedding, end.embedding)
    assert not same_parameters(start.h0, end.h0)


def test_models_without_such_layers_are_refused():
    with pytest.raises(InputError, match="linear or convolutional"):
        projected_layers(Point(), torch.zeros(1, 2))
    for odd in (dict(groups=2), dict(padding="same"), dict(padding=1, padding_mode="reflect")):
        with pytest.raises(NotImplementedError, match="zero padding given in numbers"):
            projected_layers(nn.Sequential(nn.Conv2d(2, 2, 3, **odd)), torch.zeros(1, 2, 4, 4))


def test_retain_rows_alone_make_the_basis():
    given = replace(task(model()), forget=Forbidden())
    collected(UNSC()._bases(given, layers_of(given.model)))


@pytest.mark.parametrize("wrong", [dict(gamma=1.1), dict(rows_per_class=0), dict(labels="x"), dict(momentum=1.0)])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        UNSC(**wrong)
