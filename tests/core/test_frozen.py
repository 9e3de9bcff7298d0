"""Frozen features: what an extractor is made from, what it gives, and the data set of features."""

import dataclasses

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unlearn_core.attacks import GradientCanceling
from unlearn_core.checks import InputError
from unlearn_core.datasets import Digits, Features, Opinions, load_dataset
from unlearn_core.datasets.keeping import keeping
from unlearn_core.hypotheses.convex import Softmax, with_ones
from unlearn_core.models import ConvNet, Gpt2, Linear, Mlp, ResNet9, build_model, initialise
from unlearn_core.scenarios.scenario import Scenario
from unlearn_core.structure.frozen_features import (
    LinearOnFrozen,
    fit_extractor,
    keep_apart,
    on_features,
    with_head,
    without_head,
)
from unlearn_core.training import Recipe, predict

SMALL = {
    "base": {"name": "digits", "size": 8},
    "model": {"name": "mlp", "hidden": [16]},
    "recipe": {"epochs": 3, "lr": 0.05},
    "held_out_rows": 60,
    "train_rows": 300,
}


@pytest.fixture(scope="module")
def digits():
    return load_dataset(Digits(size=8), data_root=None, train_rows=300, held_out_rows=60)


@pytest.fixture(scope="module")
def made():
    return load_dataset(Features(**SMALL), data_root=None)


def trained(dataset, settings=None):
    return build_model(settings or Mlp(hidden=(16,)), input_shape=dataset.input_shape, classes=10, seed=0)


def test_rows_kept_apart_are_not_studied(digits):
    apart, rest = keep_apart(digits, 0.4)
    assert len(apart) == 120
    assert sorted([*apart.ids.tolist(), *rest.train.ids.tolist()]) == sorted(digits.train.ids.tolist())
    assert torch.bincount(apart.targets).min() >= 10, "every class, by its share"
    assert rest.test is digits.test
    with pytest.raises(InputError, match="too few on one side"):
        keep_apart(digits, 0.97)


@pytest.mark.parametrize("settings", [Linear(), Mlp(hidden=(16,)), ConvNet(width=2), ResNet9(width=4)])
def test_features_are_what_the_last_linear_layer_reads(digits, settings):
    model = trained(digits, settings).eval()
    read = []
    last = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    last.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    x = digits.train.inputs[:5]
    model(x)
    torch.testing.assert_close(without_head(model, x)(x), read[0])


def test_features_of_text_are_the_last_hidden_state():
    data = load_dataset(Opinions(rows=200), data_root=None)
    model = build_model(Gpt2(layers=1, width=8, heads=1), input_shape=data.input_shape, classes=2, seed=0).eval()
    features = without_head(model, data.train.inputs)(data.train.inputs[:5])
    assert features.shape == (5, 8)
    torch.testing.assert_close(model.head.score(features), model(data.train.inputs[:5]))


def test_features_are_standardised_on_the_rows_kept_apart(digits):
    apart, rest = keep_apart(digits, 0.4)
    body = without_head(trained(digits), digits.train.inputs)
    found = fit_extractor(body, apart).features(apart.inputs)
    alive = body(apart.inputs).std(0) > 0
    torch.testing.assert_close(found.mean(0), torch.zeros(16), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(0)[alive], torch.ones(int(alive.sum())), atol=1e-4, rtol=0)
    other = fit_extractor(body, apart).features(rest.train.inputs)
    assert other.mean(0).abs().max() > 1e-3, "not on the rows that are studied"


def test_components_are_the_principal_ones(digits):
    apart, _ = keep_apart(digits, 0.4)
    body = without_head(trained(digits), digits.train.inputs)
    whole = fit_extractor(body, apart).features(apart.inputs).double()
    found = fit_extractor(body, apart, components=3).features(apart.inputs).double()
    _, values, directions = torch.linalg.svd(whole - whole.mean(0), full_matrices=False)
    expected = whole @ directions[:3].T
    assert torch.allclose(found.abs(), expected.abs(), atol=1e-4)
    torch.testing.assert_close(found.var(0), values[:3] ** 2 / (len(apart) - 1), rtol=1e-4, atol=0)
    with pytest.raises(InputError, match=r"components must lie in \[1, 16\]"):
        fit_extractor(body, apart, components=17)


def test_a_constant_feature_is_only_centred(digits):
    apart, _ = keep_apart(digits, 0.4)
    body = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    nn.init.zeros_(body[1].weight)
    assert fit_extractor(body, apart).features(apart.inputs).abs().max() == 0


def test_only_the_head_of_the_linear_model_is_a_model(digits):
    apart, _ = keep_apart(digits, 0.4)
    extractor = fit_extractor(without_head(trained(digits), digits.train.inputs), apart)
    model = build_model(LinearOnFrozen(extractor), input_shape=digits.input_shape, classes=10, seed=1)
    assert [name for name, _ in model.named_parameters()] == ["head.weight", "head.bias"]
    before = extractor.features(apart.inputs)
    initialise(model.train(), 2)
    assert torch.equal(extractor.features(apart.inputs), before)
    assert not extractor.training
    x = apart.inputs[:4].clone().requires_grad_()
    model(x).sum().backward()
    assert x.grad.abs().sum() > 0, "attacks see through it"


def test_both_forms_of_the_model_give_the_logits_of_theta(digits):
    apart, _ = keep_apart(digits, 0.4)
    extractor = fit_extractor(without_head(trained(digits), digits.train.inputs), apart)
    theta = torch.randn(10, 17, dtype=torch.float64)
    expected = (with_ones(extractor.features(apart.inputs)) @ theta.T).float()
    held = with_head(build_model(LinearOnFrozen(extractor), input_shape=(1, 8, 8), classes=10, seed=0), theta)
    for model in (on_features(extractor, theta), held):
        torch.testing.assert_close(predict(model, apart.inputs), expected, atol=1e-4, rtol=1e-4)


def test_the_data_set_holds_features_of_the_other_rows(made, digits):
    assert (made.input_shape, len(made.train), len(made.validation) + len(made.test)) == ((16,), 180, 60)
    _, rest = keep_apart(digits, 0.4)
    assert sorted(made.train.targets.tolist()) == sorted(rest.train.targets.tolist())
    held_out = torch.cat([made.validation.targets, made.test.targets])
    assert sorted(held_out.tolist()) == sorted(torch.cat([digits.validation.targets, digits.test.targets]).tolist())
    assert made.train.inputs.std(0).max() < 1.01


def test_a_linear_model_on_it_classifies(made):
    theta = Softmax(1e-2).fit(with_ones(made.train.inputs), made.train.targets, 10).theta
    accuracy = ((with_ones(made.test.inputs) @ theta.T).argmax(1) == made.test.targets).double().mean()
    assert accuracy > 0.6, "inputs and labels belong together"


def test_settings_and_data_are_its_identity(made):
    assert load_dataset(Features(**SMALL), data_root=None).digest == made.digest
    for change in ({"components": 4}, {"apart": 0.3}, {"recipe": {"epochs": 2, "lr": 0.05}}, {"seed": 1}):
        assert load_dataset(Features(**(SMALL | change)), data_root=None).digest != made.digest


def test_defaults_are_filled_in_and_read_back():
    settings = dataclasses.asdict(Features(**SMALL))
    assert settings["recipe"]["batch_size"] == Recipe().batch_size
    assert Features(**settings) == Features(**SMALL)


def test_what_is_kept_is_not_made_again(made, monkeypatch):
    kept = {}

    def keep(recipe, make):
        key = str(sorted(recipe))
        kept.setdefault(key, None)
        kept[key] = kept[key] or make()
        return kept[key]

    source = keeping(Features(**SMALL), keep)
    first = load_dataset(source, data_root=None)
    monkeypatch.setattr("unlearn_core.datasets.features.train_body", lambda *a, **k: pytest.fail("trained again"))
    again = load_dataset(source, data_root=None)
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert torch.equal(first.train.inputs, made.train.inputs)
    assert len(kept) == 3, "body, extractor and features"
    assert keeping(Digits(), keep) == Digits()


def test_stored_weights_take_the_place_of_training(tmp_path, digits):
    model = trained(digits)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    stored = Features(**SMALL, weights=str(tmp_path / "w.safetensors"))
    apart, rest = stored.split(None)
    expected = fit_extractor(without_head(model, apart.inputs), apart).features(rest.train.inputs)
    torch.testing.assert_close(stored.extractor(apart, rest).features(rest.train.inputs), expected)
    with pytest.raises(InputError, match="cannot be read as weights of this model"):
        Features(**(SMALL | {"model": {"name": "linear"}}), weights=stored.weights).load(None)
    with pytest.raises(InputError, match=r"there is no .* \(none is fetched\)"):
        Features(**SMALL, weights="missing.safetensors").load(None)


def test_gradient_canceling_is_exact_on_features(made):
    """Without a box: the retrained minimiser is as bad as the attacker wants, its gradient cancelled to rounding."""
    decay = 1e-2
    attack = GradientCanceling(fraction=0.3, box=False, weight_decay=decay)
    scenario = Scenario(made, Linear(), Recipe(), attack, 0, torch.device("cpu"))
    problem = Softmax(decay)
    clean = problem.fit(with_ones(made.train.inputs), made.train.targets, 10)
    model = with_head(scenario.fresh_model("clean"), clean.theta)
    poisoned = attack.craft(made.train, scenario.context(lambda: model))
    full, _ = poisoned.apply(made.train)
    theta = problem.fit(with_ones(full.inputs), full.targets, 10).theta
    accuracy = ((with_ones(made.test.inputs) @ theta.T).argmax(1) == made.test.targets).double().mean()
    assert poisoned.evidence["array.canceling"][2] < 1e-8
    assert accuracy < 0.05


@pytest.mark.parametrize(
    "change, message",
    [
        ({"base": {"name": "digit"}}, "did you mean 'digits'"),
        ({"base": {"size": 8}}, "base must have a `name`"),
        ({"model": {"name": "mlp", "hiden": [3]}}, r"model.hiden is unknown; did you mean 'hidden'"),
        ({"recipe": {"lr": "fast"}}, "lr must be a number, but got 'fast'"),
        ({"recipe": {"lr": -1}}, "lr must be a positive number"),
        ({"apart": 1}, "apart must lie in"),
        ({"model": {"name": "gpt2"}}, "model gpt2 cannot read digits"),
    ],
)
def test_bad_settings(change, message):
    with pytest.raises(InputError, match=message):
        Features(**(SMALL | change)).load(None)
