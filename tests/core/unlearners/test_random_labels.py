"""Random labels: how they are drawn, in what order rows come, and the limit without forget rows."""

import math

import pytest
import torch
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from tests.contracts.tiny import CLASSES, FORGET, MODELS, RETAIN, examples, model, run, same_state
from unlearn_core.scenarios.scenario import Split
from unlearn_core.unlearners import GD, RandomLabels
from unlearn_core.unlearners import random_labels as module

NOBODY = examples(0)


def draw(targets, *, exclude_true, seed=0):
    random = torch.Generator().manual_seed(seed)
    return module.random_labels(targets, CLASSES, random, exclude_true=exclude_true)


@pytest.mark.parametrize("exclude_true", [True, False])
@pytest.mark.parametrize("true", range(CLASSES))
def test_labels_are_uniform(true, exclude_true):
    n = 12_000
    counts = torch.bincount(draw(torch.full((n,), true), exclude_true=exclude_true), minlength=CLASSES)
    allowed = [c for c in range(CLASSES) if c != true or not exclude_true]
    assert counts[allowed].sum() == n
    share = 1 / len(allowed)
    assert (counts[allowed] / n - share).abs().max() < 5 * math.sqrt(share * (1 - share) / n)


def test_two_classes_always_flip():
    targets = torch.arange(10) % 2
    drawn = module.random_labels(targets, 2, torch.Generator().manual_seed(0), exclude_true=True)
    assert torch.equal(drawn, 1 - targets)


def test_all_labels_together_pull_towards_the_uniform_distribution():
    """Mean of the cross-entropy over all labels = KL(U || p) + log C, which redrawn labels estimate without bias."""
    logits = torch.randn(1, CLASSES, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    n = 40_000
    drawn = draw(torch.zeros(n, dtype=torch.long), exclude_true=False)
    losses = functional.cross_entropy(logits.expand(n, -1), drawn, reduction="none")
    uniform = torch.full((1, CLASSES), 1 / CLASSES, dtype=torch.float64)
    divergence = functional.kl_div(functional.log_softmax(logits, 1), uniform, reduction="batchmean")
    every = functional.cross_entropy(logits.expand(CLASSES, -1), torch.arange(CLASSES))
    torch.testing.assert_close(every, divergence + math.log(CLASSES), rtol=1e-14, atol=0)
    assert abs(losses.mean() - every) < 5 * losses.std() / math.sqrt(n)


@pytest.mark.parametrize("net", MODELS)
@pytest.mark.parametrize("order", ["mixed", "forget_first"])
def test_without_forget_rows_it_is_gd_bit_for_bit(net, order):
    settings = dict(lr=0.05, epochs=2, batch_size=16, schedule="cosine")
    end = run(RandomLabels(**settings, order=order), model(net), Split(RETAIN, NOBODY)).final
    assert same_state(end, run(GD(**settings), model(net)).final)


def batches_of(monkeypatch, **settings):
    """The (inputs, targets) of every batch of a run."""
    seen = []

    def watched(net, batch):
        seen.append(batch)
        return functional.cross_entropy(net(batch[0]), batch[1])

    monkeypatch.setattr(module, "cross_entropy", watched)
    run(RandomLabels(**dict(lr=0.01, epochs=3, batch_size=16) | settings))
    return seen


def forget_rows(batch):
    """Of each row, its number in the forget set, or -1."""
    same = (batch[0].flatten(1)[:, None] == FORGET.inputs.flatten(1)).all(2)
    return torch.where(same.any(1), same.int().argmax(1), -1)


def labels_by_epoch(seen, epochs):
    """(epochs, n_f) the label that each forget row was given in each epoch."""
    labels = torch.full((epochs, len(FORGET)), -1)
    per_epoch = len(seen) // epochs
    for number, batch in enumerate(seen):
        rows = forget_rows(batch)
        labels[number // per_epoch, rows[rows >= 0]] = batch[1][rows >= 0]
    return labels


@pytest.mark.parametrize("order", ["mixed", "forget_first"])
@pytest.mark.parametrize("redraw", [True, False])
@pytest.mark.parametrize("exclude_true", [True, False])
def test_every_epoch_relabels_every_forget_row(monkeypatch, order, redraw, exclude_true):
    seen = batches_of(monkeypatch, order=order, redraw=redraw, exclude_true=exclude_true)
    labels = labels_by_epoch(seen, 3)
    assert (labels >= 0).all(), "a forget row was left out"
    assert torch.equal(labels[0], labels[1]) == torch.equal(labels[1], labels[2]) == (not redraw)
    assert (labels != FORGET.targets).all() or not exclude_true
    retain = torch.cat([batch[1][forget_rows(batch) < 0] for batch in seen])
    assert torch.equal(retain.bincount(), 3 * RETAIN.targets.bincount()), "labels of retain rows were changed"


def test_orders(monkeypatch):
    first = batches_of(monkeypatch, order="forget_first", batch_size=5)
    kinds = [set((forget_rows(batch) >= 0).tolist()) for batch in first]
    assert kinds == 3 * ([{True}] * 2 + [{False}] * 8)
    mixed = batches_of(monkeypatch, order="mixed", batch_size=25)
    assert any(len(set((forget_rows(batch) >= 0).tolist())) == 2 for batch in mixed)
    assert len(mixed) == 3 * 2


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 1.0])
def test_one_sample_of_retain_rows_for_all_epochs(monkeypatch, share):
    seen = batches_of(monkeypatch, retain_share=share)
    retain = torch.cat([batch[0][forget_rows(batch) < 0] for batch in seen]).flatten(1)
    distinct, counts = retain.unique(dim=0, return_counts=True)
    assert len(distinct) == round(share * len(RETAIN))
    assert (counts == 3).all()


@pytest.mark.parametrize("order", ["mixed", "forget_first"])
def test_cost_is_a_pass_over_all_rows_and_epoch(order):
    row = run(GD(epochs=1)).rungs[0].flops / len(RETAIN)
    assert run(RandomLabels(epochs=2, order=order)).rungs[0].flops == 2 * 50 * row


@pytest.mark.parametrize("net", MODELS)
def test_the_number_of_classes_costs_nothing_and_changes_nothing(net):
    corrupted = model(net)
    with FlopCounterMode(display=False) as counter:
        assert module.count_classes(corrupted, FORGET.inputs) == CLASSES
    assert counter.get_total_flops() == 0
    assert same_state(corrupted, model(net))
