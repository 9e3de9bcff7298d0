"""Defects found in published code for unlearning, each with the test that would have caught it: 3, 7, 8, 12, 15."""

import copy
from dataclasses import fields, replace

import pytest
import torch
from torch.nn import functional

from sweeps.storage.record_log import read_trials
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.contracts.tiny import CLASSES, DATA, FORGET, RETAIN, examples, model, run, same_state, weights
from tests.core.unlearners.parts import collected
from tests.sweeps.tiny import run_all, science, tiny
from unlearn_core.scenarios.scenario import Split
from unlearn_core.types import Task
from unlearn_core.unlearners import GA, SSD, Influence, NegGradPlus, SalUn
from unlearn_core.unlearners.salun import gradient_sums
from unlearn_core.unlearners.scrub import distillation


def gradients(net, rows):
    """(n, P) in double precision: one row at a time, in evaluation mode."""
    net = copy.deepcopy(net).double().eval()
    parts = []
    for x, y in zip(rows.inputs.double(), rows.targets, strict=True):
        loss = functional.cross_entropy(net(x[None]), y[None])
        parts.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))]))
    return torch.stack(parts)


def test_defect_03_the_influence_step_is_that_of_the_inverse_and_no_scaled_gradient():
    """The published recursion follows one vector in the place of one per row: its step is about a scaled gradient."""
    net, damping = model("linear"), 0.1
    kept, lost = gradients(net, RETAIN), gradients(net, FORGET)
    share = len(FORGET) / (len(FORGET) + len(RETAIN))
    direction = share * (lost.mean(0) - kept.mean(0))
    fisher = kept.T @ kept / len(kept)
    exact = torch.linalg.solve(fisher + damping * torch.eye(len(fisher), dtype=fisher.dtype), direction)
    settings = Influence(damping=damping, curvature_rows=len(RETAIN))
    step = (weights(run(settings, net).final) - weights(net)).double()
    torch.testing.assert_close(step, exact, rtol=1e-3, atol=1e-5 * exact.abs().max().item())
    assert functional.cosine_similarity(step, direction, dim=0) < 0.9


def confident(net, scale=20.0):
    """A model whose loss on many rows is far above log(classes)."""
    net = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(scale)
    return net


@pytest.mark.parametrize("method", [GA(), NegGradPlus(beta=0.0, weight_decay=0.0)])
def test_defect_07_ascent_pushes_at_every_loss(method):
    """A loss clamped at zero has no gradient once its sign is turned: nothing would be forgotten."""
    for net in (model("linear"), confident(model("linear"))):
        one = replace(method, lr=1e-3, epochs=1, momentum=0.0, **batch_size_of(method))
        rise = weights(run(one, net).final) - weights(net)
        uphill = gradients(net, FORGET).mean(0)
        assert functional.cosine_similarity(rise.double(), uphill, dim=0) > 0.999


def batch_size_of(method):
    """So that one epoch is one step with all forget rows."""
    rows = dict(batch_size=len(RETAIN))
    return rows | (dict(forget_batch_size=len(FORGET)) if isinstance(method, NegGradPlus) else {})


@pytest.mark.parametrize("chunk", [1, 4, 9])
def test_defect_07_the_saliency_of_a_weight_is_one_sum_over_the_rows(chunk):
    """Gradients that are not cleared between batches count the first rows once per batch, whatever is left in .grad."""
    net = model("convnet")
    for parameter in net.parameters():
        parameter.grad = torch.full_like(parameter, 1e6)
    sums = collected(gradient_sums(net, FORGET, chunk=chunk, phase="saliency"))
    found = torch.cat([g.flatten() for g in sums.values()])
    torch.testing.assert_close(found.double(), gradients(net, FORGET).sum(0), rtol=1e-3, atol=1e-5)
    assert same_state(run(SalUn(lr=0.05, epochs=1), net).final, run(SalUn(lr=0.05, epochs=1), model("convnet")).final)


def one_class(rows):
    return replace(rows, targets=torch.zeros_like(rows.targets))


FORGET_SETS = {
    "rows of all classes": examples(9, seed=1),
    "rows of one class": one_class(examples(9, seed=1)),
    "a single row": examples(1, seed=1),
    "a class that is in no retain row": replace(examples(9, seed=1), targets=torch.full((9,), CLASSES - 1)),
}


@pytest.mark.parametrize("kind", FORGET_SETS)
def test_defect_08_dampening_takes_every_kind_of_forget_set(kind):
    """The published entry for random rows crashes; the one for whole classes works."""
    data = DATA._replace(forget=FORGET_SETS[kind])
    if kind.startswith("a class"):
        data = data._replace(retain=RETAIN.rows(RETAIN.targets < CLASSES - 1))
    ended = run(SSD(alpha=1.0), model("convnet"), data)
    assert ended.rungs[-1].status == "finished"
    assert not torch.equal(weights(ended.final), weights(model("convnet")))


def test_defect_12_an_unlearner_is_given_no_held_out_rows():
    assert {field.name for field in fields(Task)} == {"model", "retain", "forget", "recipe", "rng", "progress"}
    assert Split._fields == ("retain", "forget")


class OtherTest(ScenarioCache):
    """The same sweep with noise in the place of the test rows."""

    @property
    def dataset(self):
        data = super().dataset
        noise = torch.randn(data.test.inputs.shape, generator=torch.Generator().manual_seed(0))
        return replace(data, test=replace(data.test, inputs=noise))


def test_defect_12_nothing_is_chosen_by_test_rows(tmp_path):
    """A checkpoint or a setting chosen on the rows that are reported makes them worthless."""
    found = []
    for number, kind in enumerate((ScenarioCache, OtherTest)):
        work = kind(tiny(methods=["gd"]), RunEnvironment(tmp_path / str(number)))
        run_all(work, tmp_path / str(number) / "tiny")
        found.append(science(read_trials(tmp_path / str(number) / "tiny")))
    for stage in ("tuning", "confirmation"):
        first, second = ({k: t for k, t in trials.items() if t["stage"] == stage} for trials in found)
        assert first.keys() == second.keys(), "other settings were chosen"
        assert (first == second) == (stage == "tuning")


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_defect_15_distillation_is_a_mean_over_rows_and_not_over_classes(classes, temperature):
    """PyTorch's "mean" of a divergence divides by rows times classes."""
    random = torch.Generator().manual_seed(classes)
    target, logits = (3 * torch.randn(6, classes, generator=random, dtype=torch.float64) for _ in range(2))
    p, q = (torch.softmax(z / temperature, 1) for z in (target, logits))
    by_hand = temperature**2 * sum(float((a * (a / b).log()).sum()) for a, b in zip(p, q, strict=True)) / 6
    assert float(distillation(target, logits, temperature)) == pytest.approx(by_hand, rel=1e-9)
    never = torch.full((6, 50), -1e4, dtype=torch.float64)  # more classes that no model ever predicts
    wider = distillation(torch.cat([target, never], 1), torch.cat([logits, never], 1), temperature)
    assert float(wider) == pytest.approx(by_hand, rel=1e-9)
