"""From a model to the arrays that metrics reduce."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from tests.contracts.tiny import (
    CPU,
    FORGET,
    MODELS,
    RECIPE,
    RETAIN,
    SHAPE,
    as_text,
    data_for,
    examples,
    model,
    same_state,
    weights,
)
from unlearn_core.gradients.input_gradients import input_gradients, noise_alignment
from unlearn_core.scenarios import evaluation
from unlearn_core.scenarios.evaluation import FRESH_SCORES, Evaluator, NotFiniteError, distances, fresh_noise
from unlearn_core.scenarios.relearning import Relearning
from unlearn_core.seeding import Streams
from unlearn_core.types import Examples, Poisoned, Probe

EPSILON = 0.5
NOISE = EPSILON * examples(9, seed=11).inputs
FRESH = EPSILON * examples(27, seed=12).inputs.view(3, 9, *SHAPE)
HELD_OUT = examples(13, seed=5)


def evaluator(**changes):
    evidence = {"base_inputs": FORGET.inputs - NOISE, "noise": NOISE, "epsilon": torch.tensor(EPSILON)}
    return replace(Evaluator(HELD_OUT, RETAIN, FORGET, {"unseen": Probe(HELD_OUT)}, evidence, FRESH), **changes)


@pytest.mark.parametrize("net", MODELS)
def test_arrays_are_the_models_outputs(net):
    given = model(net).train()
    retain, forget = data_for(given)
    held_out = as_text(HELD_OUT) if net == "gpt2" else HELD_OUT
    probes = {"unseen": Probe(held_out)}
    arrays = Evaluator(held_out, retain, forget, probes, {}, None).arrays(given)
    reference = model(net).eval()
    for name, rows in {"test": held_out, "retain": retain, "forget": forget, "unseen": held_out}.items():
        np.testing.assert_allclose(arrays[f"{name}_logits"], reference(rows.inputs).detach(), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(arrays[f"{name}_targets"], rows.targets)
    assert same_state(given, model(net)) and given.training


@pytest.mark.parametrize("net", [name for name in MODELS if name != "gpt2"])
def test_score_i_belongs_to_poison_i(net):
    """One row at a time, each with its own base input, label and noise."""
    arrays = evaluator().arrays(model(net))
    base = FORGET.inputs - NOISE
    for i in range(9):
        gradient = input_gradients(model(net), base[i : i + 1], FORGET.targets[i : i + 1])
        expected = noise_alignment(gradient, NOISE[i : i + 1], EPSILON)
        assert arrays["noise_scores"][i] == pytest.approx(expected.item(), rel=1e-3, abs=1e-5)
        fresh = noise_alignment(gradient, FRESH[:, i : i + 1], EPSILON)
        np.testing.assert_allclose(arrays["fresh_noise_scores"][:, i], fresh[:, 0], rtol=1e-3, atol=1e-5)


def test_rows_whose_gradient_vanishes_are_dropped_and_counted():
    """One row so far on its label's side that float32 knows no gradient."""
    net, rows = model("linear"), FORGET
    w = net[0][1].weight.detach()
    sure = rows.inputs.clone()
    label = int(rows.targets[4])
    sure[4] = 1e4 * (4 * w[label] - w.sum(0)).view(SHAPE)
    evidence = {"base_inputs": sure, "noise": NOISE, "epsilon": torch.tensor(EPSILON)}
    arrays = evaluator(evidence=evidence).arrays(net)
    full = evaluator(evidence=evidence | {"base_inputs": rows.inputs}).arrays(net)
    kept = [i for i in range(9) if i != 4]
    assert arrays["noise_dropped"] == 1 and full["noise_dropped"] == 0
    np.testing.assert_allclose(arrays["noise_scores"], full["noise_scores"][kept], rtol=1e-6)
    np.testing.assert_allclose(arrays["fresh_noise_scores"], full["fresh_noise_scores"][:, kept], rtol=1e-6)


def test_a_dead_network_is_measured():
    """No gradient at all: the score is undefined, the accuracies are not."""
    net = model("mlp")
    with torch.no_grad():
        net.fc1[1].bias.fill_(-1e6)
    metrics = evaluator()(net)
    assert math.isnan(metrics["gaussian_score"]) and metrics["gaussian_dropped"] == 9
    assert 0 <= metrics["test_accuracy"] <= 1


@pytest.mark.parametrize("scale", [1e25, math.nan])
def test_outputs_that_are_no_numbers_are_named(scale):
    """Of finite weights, too: two layers of 1e25 make logits of 1e50."""
    net = model("mlp")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(scale)
    with pytest.raises(NotFiniteError, match="test_logits"):
        evaluator()(net)


def test_probes_that_share_rows_are_run_once(monkeypatch):
    sizes = []
    original = evaluation.predict
    monkeypatch.setattr(evaluation, "predict", lambda net, x: sizes.append(len(x)) or original(net, x))
    shared, true = examples(7, seed=6), torch.zeros(7, dtype=torch.long)
    arrays = evaluator(probes={"unseen": Probe(shared), "triggered": Probe(shared, true)}).arrays(model())
    assert sizes == [13, 41, 9, 7]
    np.testing.assert_array_equal(arrays["triggered_logits"], arrays["unseen_logits"])
    np.testing.assert_array_equal(arrays["triggered_true"], true)


def test_without_noise_there_are_no_scores():
    arrays = evaluator(fresh_noise=None, evidence={}).arrays(model())
    assert not any("noise" in name for name in arrays)
    assert "gaussian_score" not in evaluator(fresh_noise=None, evidence={})(model())


def test_distances_by_hand():
    first, second = model("convnet", seed=0), model("convnet", seed=1)
    difference = (weights(first) - weights(second)).double()
    reference = dict(second.named_parameters())
    expected = torch.tensor([difference.abs().sum(), difference.norm()])
    torch.testing.assert_close(distances(first, reference), expected)
    assert distances(first, dict(first.named_parameters())).eq(0).all()
    metrics = evaluator(references={"corrupted": reference, "oracle": dict(first.named_parameters())})(first)
    assert metrics["l2_from_corrupted"] == pytest.approx(difference.norm().item())
    assert metrics["l1_from_oracle"] == 0


def test_constants_are_handed_to_the_metrics_as_they_are():
    logits = {f"oracle_{name}_logits": evaluator().arrays(model())[f"{name}_logits"] for name in ("test", "forget")}
    with_oracle = evaluator(constants=logits)
    assert with_oracle(model())["agreement_test"] == 1
    assert with_oracle(model(seed=1))["agreement_test"] < 1
    assert "agreement_test" not in evaluator()(model())


def test_relearning_is_measured_only_where_it_is_asked_for():
    relearning = Relearning(FORGET, RECIPE, Streams(0, CPU), target=0.5, passes=2.0)
    costly = evaluator(relearning=relearning, constants={"relearn_target": np.array(0.5)})
    values = costly(model())
    assert values["relearn_passes"] > 0
    assert values.keys() - evaluator()(model()).keys() == {"relearn_passes", "relearn_censored"}
    broken = model()
    with torch.no_grad():
        broken.head.weight.fill_(math.nan)
    with pytest.raises(NotFiniteError, match="test_logits"):  # and no attempt to train it
        costly(broken)


@pytest.mark.parametrize("m", [1, 7, 300, 2001])
def test_fresh_noise_is_of_the_same_law_and_enough(m):
    noise = EPSILON * torch.randn(m, 3, generator=torch.Generator().manual_seed(0))
    evidence = {"noise": noise, "epsilon": torch.tensor(EPSILON)}
    rows = torch.arange(m)
    fresh = fresh_noise(Poisoned(rows, noise, rows, evidence=evidence), Streams(1, CPU)("fresh"))
    assert fresh.shape[1:] == noise.shape
    assert FRESH_SCORES <= fresh.shape[0] * m < FRESH_SCORES + 2 * m
    assert kstest((fresh / EPSILON).flatten().numpy(), "norm").pvalue > 1e-3
    assert not torch.equal(fresh[0], noise)


def test_attacks_without_noise_need_none():
    rows = torch.arange(2)
    assert fresh_noise(Poisoned(rows, torch.zeros(2, 3), rows), Streams(1, CPU)("fresh")) is None


def test_rows_can_be_picked_and_counted():
    mask = FORGET.targets == FORGET.targets[0]
    picked = FORGET.rows(mask)
    assert isinstance(picked, Examples) and len(picked) == int(mask.sum())
    assert torch.equal(picked.ids, FORGET.ids[mask])
