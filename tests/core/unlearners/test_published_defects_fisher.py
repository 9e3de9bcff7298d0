"""Defects that published code for Fisher-based dampening is known to have had; ours must not."""

import pytest
import torch
from torch.nn import functional

from tests.contracts.tiny import DATA, MODELS, RETAIN, examples, model, same_state, task
from tests.core.unlearners.parts import collected
from unlearn_core.gradients.fisher import squared_batch_gradient
from unlearn_core.scenarios.scenario import Split
from unlearn_core.types import Examples
from unlearn_core.unlearners import LFSSD, SSD, Influence, Potion


def diagonal(net, rows):
    """Mean over the rows of the squared gradient, by a backward pass for each row."""
    net, parameters = net.eval(), list(net.parameters())
    total = torch.zeros(sum(p.numel() for p in parameters))
    for x, y in zip(rows.inputs, rows.targets, strict=True):
        loss = functional.cross_entropy(net(x[None]), y[None])
        total += torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)]).square()
    return total / len(rows)


def flat(sums, net):
    return torch.cat([sums[name].flatten() for name, _ in net.named_parameters()])


def labelled_by_the_model(net, rows, seed=0):
    """Labels drawn from the model's own predictions, so that the expected gradient is zero."""
    random = torch.Generator().manual_seed(seed)
    targets = torch.multinomial(net.eval()(rows.inputs).softmax(1), 1, generator=random).squeeze(1)
    return Examples(rows.inputs, targets, rows.ids)


@pytest.mark.parametrize("net", MODELS)
def test_defect_09_importance_is_of_rows_not_of_batches(net):
    """The square of a batch's mean gradient is no Fisher information: some published SSD takes it for that."""
    data, _ = collected(SSD().importances(task(model(net), Split(RETAIN, examples(30, seed=4)))))
    own = flat(data, model(net))
    torch.testing.assert_close(own, diagonal(model(net), examples(30, seed=4)), rtol=1e-3, atol=1e-6)
    rows = examples(30, seed=4)
    batch = flat(squared_batch_gradient(model(net), rows.inputs, rows.targets), model(net))
    assert (own - batch).norm() > 0.2 * own.norm()


def test_defect_09_a_batch_shrinks_the_information_by_its_size():
    """With a mean gradient of zero, E (mean of B gradients)² = E g² / B."""
    net, size = model("linear"), 64
    rows = labelled_by_the_model(net, examples(20 * size, seed=5))
    exact = diagonal(net, rows).sum()
    parts = zip(rows.inputs.split(size), rows.targets.split(size), strict=True)
    batch = sum(flat(squared_batch_gradient(net, *part), net).sum() for part in parts) / 20
    assert (size * batch / exact).item() == pytest.approx(1, abs=0.3)


def test_defect_09_small_forget_sets_do_not_look_important():
    """Forget rows of the same law as the rest: nothing is 10 times more important, but for squares of batches."""
    net = model("mlp")
    everything = labelled_by_the_model(net, examples(1000, seed=6))
    index = torch.arange(1000)
    data = Split(everything.rows(index >= 8), everything.rows(index < 8))
    shares = {}
    for size in (1, 128):
        forget, whole = (flat(part, net) for part in collected(SSD(fisher_batch=size).importances(task(net, data))))
        shares[size] = (forget > 10 * whole).float().mean().item()
    assert shares[1] < 0.01
    assert shares[128] > 0.1


def interleaved(methods, datas):
    """The end states of runs that take turns, update by update."""
    nets = [model("convnet") for _ in methods]
    runs = [m.updates(task(net, data)) for m, net, data in zip(methods, nets, datas, strict=True)]
    while runs:
        runs = [run for run in runs if next(run, None) is not None]
    return nets


KINDS = {
    "ssd": lambda s: SSD(alpha=s, ratio=0.5, chunk=8),
    "lfssd": lambda s: LFSSD(alpha=s, ratio=0.5, chunk=8),
    "potion": lambda s: Potion(rho=0.5, first=s, growth=2.0, chunk=8),
    "influence": lambda s: Influence(damping=s, curvature_rows=9, chunk=8),
}


@pytest.mark.parametrize("kind", KINDS)
def test_defect_14_runs_in_one_folder_and_process_do_not_meet(kind, tmp_path, monkeypatch):
    """Published code keeps importances in files of fixed names: of two runs at a time, one reads the other's."""
    monkeypatch.chdir(tmp_path)
    other = Split(examples(41, seed=8), examples(9, seed=9))
    methods, datas = [KINDS[kind](1.0), KINDS[kind](1.2)], [DATA, other]
    together = interleaved(methods, datas)
    alone = [interleaved([m], [d])[0] for m, d in zip(methods, datas, strict=True)]
    assert all(same_state(a, b) for a, b in zip(together, alone, strict=True))
    assert not same_state(*alone)
    assert not any(same_state(net, model("convnet")) for net in alone)
    assert not list(tmp_path.rglob("*")), "files were left behind"
