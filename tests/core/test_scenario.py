"""Splits of poisoned data, reference trainings, and the ladder of one trial."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.contracts.tiny import CPU, DATA, FORGET, RECIPE, RETAIN, examples, model, run, same_state, task, weights
from unlearn_core.attacks import Gaussian
from unlearn_core.checks import InputError
from unlearn_core.models import Mlp
from unlearn_core.scenarios.evaluation import NotFiniteError
from unlearn_core.scenarios.scenario import (
    Scenario,
    build_evaluator,
    check_classes,
    clean_rows,
    head,
    poison_rows,
    share_spent,
    split_poisoned,
    unlearn,
)
from unlearn_core.seeding import Streams
from unlearn_core.training import Recipe
from unlearn_core.training.budget import Meter
from unlearn_core.types import Examples, Poisoned
from unlearn_core.unlearners import GD

TRAIN = Examples(examples(30).inputs, examples(30).targets, torch.arange(30) + 500)
MODES = pytest.mark.parametrize("mode", ["replace", "append"])


def poisons(mode):
    """Ten poisons on shuffled rows; each input holds its own number, so that rows can be recognised."""
    rows = torch.randperm(30, generator=torch.Generator().manual_seed(1))[:10]
    inputs = (100 + torch.arange(10.0)).view(10, 1, 1, 1).expand(10, 3, 8, 8)
    return Poisoned(rows, inputs, torch.full((10,), 3), mode=mode, evidence={"number": torch.arange(10)})


def numbers(rows):
    """Which poisons are among these rows."""
    values = rows.inputs[:, 0, 0, 0]
    return (values[values >= 100] - 100).long().tolist()


def split(mode, rate, seed=0):
    return split_poisoned(poisons(mode), TRAIN, discovery_rate=rate, rng=Streams(seed, CPU))


@MODES
@pytest.mark.parametrize("rate", [0.01, 0.1, 0.3, 0.5, 1.0])
def test_a_split_parts_the_poisoned_set(mode, rate):
    full, _ = poisons(mode).apply(TRAIN)
    retain, forget = split(mode, rate)
    found = max(1, round(10 * rate))
    assert len(forget) == len(numbers(forget)) == found
    assert len(numbers(retain)) == 10 - found, "undiscovered poisons must stay in the retain set"
    assert sorted(numbers(retain) + numbers(forget)) == list(range(10))
    ids = torch.cat([retain.ids, forget.ids])
    assert torch.equal(ids.sort().values, full.ids.sort().values)
    assert (forget.targets == 3).all()


@MODES
def test_discoveries_at_lower_rates_are_among_those_at_higher(mode):
    found = [set(numbers(split(mode, rate).forget)) for rate in (0.1, 0.3, 0.7, 1.0)]
    assert all(a < b for a, b in itertools.pairwise(found))
    assert found[1] == set(numbers(split(mode, 0.3).forget))
    assert any(found[1] != set(numbers(split(mode, 0.3, seed=s).forget)) for s in (1, 2, 3))


def test_replaced_rows_keep_id_and_place():
    poisoned = poisons("replace")
    full, mask = poisoned.apply(TRAIN)
    assert torch.equal(full.ids, TRAIN.ids)
    assert torch.equal(full.inputs[poisoned.rows], poisoned.inputs)
    assert mask.sum() == 10 and mask[poisoned.rows].all()
    assert torch.equal(full.inputs[~mask], TRAIN.inputs[~mask])
    assert torch.equal(full.targets[~mask], TRAIN.targets[~mask])
    assert TRAIN.inputs.max() < 100, "the clean set was changed"


def test_appended_rows_get_new_ids():
    poisoned = poisons("append")
    full, mask = poisoned.apply(TRAIN)
    assert torch.equal(full.inputs[:30], TRAIN.inputs) and torch.equal(full.targets[:30], TRAIN.targets)
    assert torch.equal(full.inputs[30:], poisoned.inputs)
    assert torch.equal(full.ids[30:], 530 + torch.arange(10))
    assert mask.tolist() == [False] * 30 + [True] * 10


def test_the_oracles_rows_hold_no_poison_and_no_original_of_one():
    replaced, appended = (clean_rows(poisons(mode), TRAIN) for mode in ("replace", "append"))
    left = torch.ones(30, dtype=torch.bool)
    left[poisons("replace").rows] = False
    assert torch.equal(replaced.ids, TRAIN.ids[left])
    assert torch.equal(replaced.inputs, TRAIN.inputs[left])
    assert torch.equal(appended.inputs, TRAIN.inputs)


@MODES
def test_poison_rows_are_in_the_order_of_their_evidence(mode):
    """Sorting by position, as a mask does, would pair each row with another row's noise."""
    poisoned = poisons(mode)
    assert numbers(poison_rows(poisoned, TRAIN)) == poisoned.evidence["number"].tolist()
    full, _ = poisoned.apply(TRAIN)
    for row in range(10):
        same_id = full.rows(full.ids == poison_rows(poisoned, TRAIN).ids[row])
        assert numbers(same_id) == [row]
    assert poisoned.rows.tolist() != sorted(poisoned.rows.tolist())


def test_every_class_must_keep_a_clean_row():
    check_classes(torch.tensor([0, 1, 2, 2]), 3)
    for kept, gone in (([0, 1, 1], 2), ([1, 2], 0), ([], 0)):
        with pytest.raises(InputError, match=f"no clean training row of class {gone}"):
            check_classes(torch.tensor(kept, dtype=torch.long), 3)


def test_head_takes_the_first_rows():
    assert torch.equal(head(TRAIN, 7).ids, TRAIN.ids[:7])
    assert len(head(TRAIN, 1000)) == 30


# Reference trainings


@pytest.fixture
def scenario(digits):
    recipe = Recipe(epochs=2, batch_size=50)
    return Scenario(digits, Mlp(hidden=(8,)), recipe, Gaussian(fraction=0.1), seed=4, device=CPU)


def test_trainings_of_one_label_share_their_start(scenario):
    """Corrupted model and oracle differ by their data alone."""
    first, again, other = (scenario.fresh_model(label) for label in ("train", "train", "retrain"))
    assert same_state(first, again)
    assert not same_state(first, other)
    assert not same_state(first, replace(scenario, seed=5).fresh_model("train"))


def test_training_repeats_and_is_charged(scenario):
    first, again = (scenario.train(scenario.dataset.train) for _ in range(2))
    assert same_state(first.model, again.model)
    assert first.cost.status == "finished"
    assert first.cost.steps == 2 * 400 / 50
    row = 2 * 2 * (256 * 8) + 3 * 2 * (8 * 10)  # forward, weight gradient, and the head's input gradient
    assert first.cost.flops == 2 * 400 * row
    assert not same_state(first.model, scenario.train(scenario.dataset.train, "retrain").model)


class Dropping:
    """Settings of a model with dropout, which draws from torch's global state."""

    def build(self, *, input_shape, classes):
        return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(math.prod(input_shape), classes))


def test_dropout_is_a_function_of_the_seed(scenario):
    scenario = replace(scenario, model=Dropping())
    first = scenario.train(scenario.dataset.train).model
    torch.rand(1)  # as whatever ran in this process before
    before = torch.get_rng_state()
    second = scenario.train(scenario.dataset.train).model
    assert same_state(first, second)
    assert torch.equal(torch.get_rng_state(), before)
    data = DATA._replace(retain=scenario.dataset.train, forget=scenario.dataset.test)
    runs = [run(GD(epochs=1), first, data).final for _ in range(2)]
    assert same_state(*runs) and not same_state(runs[0], run(GD(epochs=1), first, data, seed=1).final)


def test_a_training_that_diverges_says_so(scenario):
    hot = replace(scenario, recipe=replace(scenario.recipe, lr=1e30))
    with pytest.raises(InputError, match="training diverged: recipe lr 1e\\+30"):
        hot.train(scenario.dataset.train)


def test_evaluators_pair_forget_rows_with_their_noise(scenario):
    """x_forget − x_base is the noise, row by row; and the retain sample holds no poison."""
    train = scenario.dataset.train
    poisoned = scenario.attack.craft(train, scenario.context())
    evaluator = build_evaluator(scenario, poisoned, scenario.dataset.validation, {})
    noise = evaluator.forget.inputs - evaluator.evidence["base_inputs"]
    torch.testing.assert_close(noise, evaluator.evidence["noise"])
    by_id = {int(i): t for i, t in zip(train.ids, train.targets, strict=True)}
    assert [by_id[int(i)] for i in evaluator.forget.ids] == evaluator.forget.targets.tolist()
    assert not set(evaluator.retain.ids.tolist()) & set(evaluator.forget.ids.tolist())
    assert len(evaluator.retain) == 400 - 40
    assert torch.equal(evaluator.held_out.ids, scenario.dataset.validation.ids)


def references_of(scenario, poisoned):
    """The corrupted model and the oracle."""
    full, _ = poisoned.apply(scenario.dataset.train)
    sets = {"corrupted": full, "oracle": clean_rows(poisoned, scenario.dataset.train)}
    return {name: scenario.train(rows).model for name, rows in sets.items()}


AT_ORACLE = {
    "agreement_test": 1, "agreement_forget": 1, "js_test": 0, "js_forget": 0, "tow": 1, "tow_mia": 1, "average_gap": 0,
    "shift_along": 1, "shift_across": 0, "l2_from_oracle": 0,
}  # fmt: skip


def test_the_oracle_measured_against_itself_gives_every_target(scenario):
    poisoned = scenario.attack.craft(scenario.dataset.train, scenario.context())
    references = references_of(scenario, poisoned)
    evaluator = build_evaluator(scenario, poisoned, scenario.dataset.test, references, relearn=True)
    oracle, corrupted = (evaluator(references[name]) for name in ("oracle", "corrupted"))
    assert {name: oracle[name] for name in AT_ORACLE} == pytest.approx(AT_ORACLE)
    assert corrupted["relearn_passes"] == corrupted["shift_along"] == corrupted["shift_across"] == 0
    assert oracle["relearn_passes"] >= 0
    assert corrupted["tow"] < 1 and corrupted["js_test"] > 0
    again = build_evaluator(scenario, poisoned, scenario.dataset.test, references, relearn=True)
    assert again(references["oracle"]) == pytest.approx(oracle, rel=0, abs=0, nan_ok=True)


@MODES
def test_true_labels_are_those_of_the_rows_the_poisons_were_made_from(scenario, mode):
    """Poisons that all get one label, in either mode."""
    train = scenario.dataset.train
    rows = torch.randperm(400, generator=torch.Generator().manual_seed(1))[:10]
    evidence = {"noise": torch.zeros(10, *train.inputs.shape[1:]), "base_inputs": train.inputs[rows]}
    evidence |= {"epsilon": torch.tensor(1.0)}
    poisoned = Poisoned(rows, train.inputs[rows], torch.full((10,), 3), mode=mode, evidence=evidence)
    evaluator = build_evaluator(scenario, poisoned, scenario.dataset.test, {})
    assert evaluator.constants["forget_true"].tolist() == train.targets[rows].tolist()
    assert torch.equal(evaluator.forget.inputs, train.inputs[rows])
    assert evaluator.constants.keys() == {"forget_true", "untrained_forget_logits"}


def test_the_untrained_network_is_of_the_scenario_and_fixed(scenario):
    poisoned = scenario.attack.craft(scenario.dataset.train, scenario.context())
    logits = [
        build_evaluator(one, poisoned, scenario.dataset.test, {}).constants["untrained_forget_logits"]
        for one in (scenario, scenario, replace(scenario, seed=5))
    ]
    assert (logits[0] == logits[1]).all() and (logits[0] != logits[2]).any()
    untrained = scenario.fresh_model("train")
    forget = poison_rows(poisoned, scenario.dataset.train)
    assert (logits[0] != untrained(forget.inputs).detach().numpy()).any(), "it must not be where training starts"


# One trial


def test_a_trial_starts_from_a_copy():
    corrupted = model("convnet")
    first = run(GD(epochs=1), corrupted)
    assert same_state(corrupted, model("convnet"))
    assert same_state(run(GD(epochs=1), corrupted).final, first.final)


def test_discovered_rows_are_what_the_method_forgets():
    """Named, so that they cannot be swapped."""
    assert (DATA.retain, DATA.forget) == (RETAIN, FORGET)
    given = task(model())
    assert (given.retain, given.forget) == (RETAIN, FORGET)


def overflowing(net):
    raise NotFiniteError


def test_outputs_that_overflow_are_a_divergence():
    settings = dict(recipe=RECIPE, rng=Streams(0, CPU), budgets=[1e3, 1e9])
    measured = unlearn(GD(epochs=1), model(), DATA, evaluator=overflowing, **settings)
    assert [(m.rung.status, m.metrics) for m in measured] == [("diverged", {})] * 2
    with pytest.raises(ZeroDivisionError):  # other errors are not swallowed
        unlearn(GD(epochs=1), model(), DATA, evaluator=lambda net: 1 / 0, **settings)


def test_the_share_spent_is_at_most_one():
    meter = Meter(CPU)
    spent = share_spent(meter, 200.0)
    assert spent() == 0
    meter.flops = 50
    assert spent() == 0.25
    meter.flops = 300
    assert spent() == 1.0


def test_weights_are_finite_after_an_ordinary_run():
    assert torch.isfinite(weights(run(GD(epochs=1)).final)).all()
