"""Retraining in full and within a budget."""

from dataclasses import replace

import pytest
import torch

from tests.contracts.tiny import MODELS, RECIPE, RETAIN, Forbidden, examples, model, run, same_state, task, weights
from unlearn_core.scenarios.scenario import Split
from unlearn_core.training import loop as training
from unlearn_core.training import schedule_factor
from unlearn_core.types import Examples
from unlearn_core.unlearners import Retrain, RetrainAtBudget

DATA = Split(RETAIN, Forbidden())  # reading the forget set is an error
BOTH = pytest.mark.parametrize("method", [Retrain(), RetrainAtBudget()], ids=lambda m: type(m).__name__)


@BOTH
@pytest.mark.parametrize("net", MODELS)
def test_the_start_owes_nothing_to_the_corrupted_model(net, method):
    """Every random tensor is new, down to running statistics; and two corrupted models give one start."""
    starts = [model(net, seed=s) for s in (1, 2)]
    for start in starts:
        next(method.updates(task(start, DATA)))
    assert same_state(*starts)
    for (name, new), old in zip(starts[0].state_dict().items(), model(net, seed=1).state_dict().values(), strict=True):
        assert not torch.equal(new, old), name
    random = [name for name, p in starts[0].named_parameters() if p.unique().numel() > 1]  # not scales 1, shifts 0
    new, old = (
        torch.cat([dict(m.named_parameters())[k].flatten() for k in random]) for m in (starts[0], model(net, 1))
    )
    assert abs(torch.cosine_similarity(new, old, dim=0).item()) < 5 / len(new) ** 0.5 + 0.02


class Watched(torch.Tensor):
    """Notes which rows are taken from it."""

    read: list

    def __getitem__(self, index):
        self.read.append(torch.as_tensor(index).clone())
        return self.as_subclass(torch.Tensor)[index]


def test_each_epoch_reads_each_retain_row_once():
    inputs = RETAIN.inputs.clone().as_subclass(Watched)
    inputs.read = []
    run(Retrain(), data=Split(Examples(inputs, RETAIN.targets, RETAIN.ids), Forbidden()), recipe=RECIPE)
    read = torch.cat(inputs.read).view(RECIPE.epochs, len(RETAIN))
    assert torch.equal(read.sort(1).values, torch.arange(len(RETAIN)).expand(RECIPE.epochs, -1))
    assert not torch.equal(read[0], read[1])


@BOTH
def test_other_seeds_give_other_models(method):
    budget = run(Retrain(), data=DATA).rungs[0].flops
    ends = [run(method, data=DATA, seed=s, budgets=[budget]).final for s in (0, 0, 1)]
    assert same_state(*ends[:2])
    assert not same_state(*ends[1:])


EVEN = Split(examples(48), Forbidden())  # equal batches: shares of FLOPs are shares of steps


@pytest.mark.slow
@pytest.mark.parametrize("net", MODELS)
@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "steps"])
def test_the_whole_budget_is_retraining(net, schedule):
    recipe = replace(RECIPE, schedule=schedule, warmup=0.3)
    full = run(Retrain(), model(net), EVEN, recipe=recipe)
    ladder = run(RetrainAtBudget(), model(net), EVEN, recipe=recipe, budgets=[full.rungs[0].flops])
    assert ladder.rungs[0].steps == full.rungs[0].steps
    torch.testing.assert_close(weights(ladder.final), weights(full.final), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_the_schedule_is_compressed_into_the_budget(monkeypatch, share):
    recipe = replace(RECIPE, epochs=4, schedule="cosine", warmup=0.2)
    steps = round(share * 12)
    seen = []

    def watched(name, progress, **rest):
        seen.append((progress, schedule_factor(name, progress, **rest)))
        return seen[-1][1]

    full = run(Retrain(), data=EVEN, recipe=recipe).rungs[0].flops
    monkeypatch.setattr(training, "schedule_factor", watched)
    run(RetrainAtBudget(), data=EVEN, recipe=recipe, budgets=[share * full])
    expected = [(t / steps, schedule_factor("cosine", t / steps, warmup=0.2)) for t in range(steps)]
    assert seen == [pytest.approx(pair) for pair in expected]


def test_each_budget_is_a_run_of_its_own():
    full = run(Retrain(), data=DATA).rungs[0].flops
    ladder = run(RetrainAtBudget(), data=DATA, budgets=[0.5 * full, full])
    alone = [run(RetrainAtBudget(), data=DATA, budgets=[b]) for b in (0.5 * full, full)]
    assert all(same_state(a, b.final) for a, b in zip(ladder.models, alone, strict=True))
    assert not same_state(*ladder.models)
    assert ladder.rungs[1].flops <= full
