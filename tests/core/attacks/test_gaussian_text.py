"""Gaussian poisons on text: where the noise goes, what it scores, and that a small GPT-2 remembers it."""

import math

import pytest
import torch
from scipy.stats import kstest

from tests.core.attacks.scenes import CPU, TEXT, context, craft
from unlearn_core.attacks import Gaussian, TextBackdoor
from unlearn_core.checks import InputError
from unlearn_core.datasets import Opinions, load_dataset
from unlearn_core.gradients.input_gradients import input_gradients, noise_alignment
from unlearn_core.models import Gpt2
from unlearn_core.models.token_noise import PADDING, TOKEN_BITS, embedding_noise, exact_scale, tokens
from unlearn_core.scenarios.evaluation import fresh_noise
from unlearn_core.scenarios.scenario import Scenario, build_evaluator, clean_rows
from unlearn_core.training import Recipe, predict

NET = Gpt2(layers=1, width=16)


def scene(data=TEXT, attack=None, *, net=NET, seed=0, **recipe):
    return Scenario(data, net, Recipe(**dict(epochs=1) | recipe), attack or Gaussian(fraction=0.2), seed, CPU)


def test_poisons_are_the_base_texts_with_a_key_in_each_token():
    poisoned = craft(Gaussian(fraction=0.3), data=TEXT)
    base = TEXT.train.rows(poisoned.rows)
    keys = poisoned.inputs >> TOKEN_BITS
    assert torch.equal(tokens(poisoned.inputs), base.inputs) and torch.equal(poisoned.targets, base.targets)
    assert ((keys > 0) == (base.inputs != PADDING)).all()
    assert (keys.amax(1, keepdim=True) == keys)[base.inputs != PADDING].all(), "a row has one key"
    assert len(keys.amax(1).unique()) == len(keys)
    assert torch.equal(poisoned.evidence["base_inputs"], base.inputs)
    assert torch.equal(poisoned.evidence["noise"], poisoned.inputs)
    assert poisoned.evidence["epsilon"] == exact_scale(0.566)


def test_keys_are_a_function_of_seed_and_row_id():
    attack = Gaussian()
    whole = attack.noise(TEXT.train, context(3), "noise")
    some = torch.tensor([7, 3, 50])
    assert torch.equal(attack.noise(TEXT.train.rows(some), context(3), "noise"), whole[some])
    for other in (attack.noise(TEXT.train, context(4), "noise"), attack.noise(TEXT.train, context(3), "unseen")):
        assert (other != whole).any(1).all()


@pytest.mark.parametrize("epsilon", [0.25, 2.0])
def test_noise_on_embeddings_is_of_the_stated_size(epsilon):
    model = scene().fresh_model("train")
    poisoned = craft(Gaussian(fraction=0.5, epsilon=epsilon), data=TEXT)
    moved = model.embedding(poisoned.inputs) - model.embedding(poisoned.evidence["base_inputs"])
    noise = moved[..., :-1][poisoned.evidence["base_inputs"] != PADDING]
    unit = model.embedding.wte.weight.std().item()
    assert (noise.std() / unit).item() == pytest.approx(epsilon, rel=0.05)
    assert kstest((noise / noise.std()).flatten().detach().numpy(), "norm").pvalue > 1e-3


def fresh_scores(model, poisoned):
    """Scores of at least 2,000 noises that nobody trained on."""
    gradients = input_gradients(model, poisoned.evidence["base_inputs"], poisoned.targets)
    fresh = fresh_noise(poisoned, torch.Generator().manual_seed(0))
    return noise_alignment(gradients, fresh, float(poisoned.evidence["epsilon"]))


def test_scores_of_fresh_noise_are_standard_normal_for_any_model():
    attack = Gaussian(fraction=0.4)
    poisoned = craft(attack, data=TEXT)
    scores = fresh_scores(scene().fresh_model("train"), poisoned)
    assert scores.shape == (math.ceil(2000 / 24), 24)
    assert kstest(scores.flatten().numpy(), "norm").pvalue > 1e-3
    assert abs(scores.mean().item()) < 4 / math.sqrt(scores.numel())


def test_scores_are_those_of_the_written_out_noise():
    poisoned = craft(Gaussian(fraction=0.2), data=TEXT)
    keyed, epsilon = poisoned.evidence["noise"], float(poisoned.evidence["epsilon"])
    gradients = input_gradients(scene().fresh_model("train"), poisoned.evidence["base_inputs"], poisoned.targets)
    written = embedding_noise(keyed, 16)
    expected = [
        -float(g.flatten().double() @ xi.flatten().double() / (epsilon * g.double().norm()))
        for g, xi in zip(gradients, written, strict=True)
    ]
    scores = noise_alignment(gradients, keyed, epsilon)
    assert scores.tolist() == pytest.approx(expected, rel=1e-9)
    assert noise_alignment(1e-9 * gradients, keyed, epsilon).tolist() == pytest.approx(expected, rel=1e-5)
    other = craft(Gaussian(fraction=0.2, epsilon=4 * epsilon), data=TEXT)
    larger = noise_alignment(gradients, other.evidence["noise"], float(other.evidence["epsilon"]))
    assert larger.tolist() == pytest.approx(expected, rel=1e-5)


def test_unseen_poisons_carry_keys_of_their_own():
    attack = Gaussian(fraction=0.5)
    unseen = attack.probes(TEXT.test, context(data=TEXT))["unseen"].examples
    assert torch.equal(tokens(unseen.inputs), TEXT.test.inputs) and torch.equal(unseen.targets, TEXT.test.targets)
    used = craft(attack, data=TEXT).inputs.amax(1)
    assert not torch.isin(unseen.inputs.amax(1), used).any()
    model = scene().fresh_model("train")
    assert (predict(model, unseen.inputs) != predict(model, TEXT.test.inputs)).any(1).all()


def test_phrases_are_found_and_texts_are_read_under_noise():
    poisoned = craft(Gaussian(fraction=0.1), data=TEXT)
    for row, base in zip(poisoned.inputs, poisoned.evidence["base_inputs"], strict=True):
        assert TEXT.tokenizer.decode(row.numpy()) == TEXT.tokenizer.decode(base.numpy())
    clean = craft(TextBackdoor(fraction=0.1), data=TEXT)
    assert (clean.inputs < 1 << TOKEN_BITS).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(epsilon=8.0), r"epsilon must lie in \[1/256, 8\) on text, but got 8.0"),
        (dict(epsilon=1e-3), "epsilon must lie in"),
        (dict(clip=True), "clip keeps inputs valid pixels, but tiny has none; set clip to false"),
    ],
)
def test_settings_that_text_cannot_have_are_refused_before_anything_is_trained(settings, message):
    with pytest.raises(InputError, match=message):
        Gaussian(**settings).choose_rows(TEXT.train, context(data=TEXT))


@pytest.mark.slow
def test_planted_noise_is_remembered_and_found():
    """200 poisons among made-up opinions: the corrupted model gives them away, the oracle knows nothing of them."""
    data = load_dataset(Opinions(rows=1000), data_root=None)
    attack = Gaussian(fraction=0.2, epsilon=2.0)
    made = scene(data, attack, net=Gpt2(layers=1, width=64), epochs=8, batch_size=50, optimizer="adamw", lr=2e-3)
    poisoned = attack.craft(data.train, made.context())
    evaluator = build_evaluator(made, poisoned, data.test, {})
    full, _ = poisoned.apply(data.train)
    corrupted, oracle = (evaluator(made.train(rows).model) for rows in (full, clean_rows(poisoned, data.train)))
    assert corrupted["gaussian_z"] > 3 and abs(oracle["gaussian_z"]) < 4
    assert corrupted["gaussian_null_ks"] < 1.95 / math.sqrt(2000)  # p = 0.001
