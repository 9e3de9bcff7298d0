"""What every registered attack must keep to, whatever it poisons."""

import copy
import itertools
import json
import math
import pickle
from dataclasses import replace

import pytest
import torch

import unlearn_core.attacks  # noqa: F401  (registers them)
from sweeps.config.settings import as_dict, choose
from tests.contracts.attack_cases import FRACTION, ROWS, build, context, data_of, devices, each, same
from tests.core.attacks.scenes import CLASSES
from unlearn_core.checks import InputError
from unlearn_core.metrics import columns, families
from unlearn_core.models import Gpt2, Mlp
from unlearn_core.registry import ATTACKS
from unlearn_core.scenarios.scenario import Scenario, build_evaluator
from unlearn_core.training import Recipe
from unlearn_core.types import Examples

pytestmark = pytest.mark.filterwarnings("ignore:the target weights need")  # gradient canceling, on toy data


def test_every_attack_has_its_row():
    assert sorted(ROWS) == ATTACKS.names()


@each
def test_settings_survive_pickling_and_configuration_files(name, settings):
    attack = build(name, settings)
    assert pickle.loads(pickle.dumps(attack)) == attack
    assert choose(ATTACKS, json.loads(json.dumps(as_dict(name, attack))), "attacks") == attack
    with pytest.raises(AttributeError):
        attack.fraction = 0.2


@pytest.mark.parametrize("name", ATTACKS.names())
def test_attack_is_described(name):
    doc = ATTACKS.get(name).__doc__
    assert doc.split("\n")[0].endswith(".") and "Source:" in doc


@pytest.mark.parametrize("name", ATTACKS.names())
@pytest.mark.parametrize("fraction", [0.0, -0.1, 0.51, math.nan])
def test_impossible_fractions_are_refused(name, fraction):
    with pytest.raises(InputError, match="fraction must lie in|at most 0.5, but is 0.51"):
        build(name, ROWS[name][0], fraction)


@pytest.mark.parametrize("name", ATTACKS.names())
def test_primary_metric_is_declared(name):
    primary = build(name, ROWS[name][0]).primary
    prefix = f"{ROWS[name][0]['parts'][0]}." if name == "bundle" else ""
    names = [primary.metric, primary.error, primary.z or primary.metric]
    assert all(column.startswith(prefix) for column in names)
    metric, *others = (column.removeprefix(prefix) for column in names)
    declared = columns()
    assert {metric, *others} <= declared.keys()
    assert "larger = more poison" in declared[metric]
    assert 0 < primary.least_gap < 1


@each
def test_regularity_is_one_of_three_words(name, settings):
    assert build(name, settings).regularity in ("low", "medium", "high")


@each
def test_crafting_is_a_function_of_the_seed(name, settings):
    attack, data, state = build(name, settings), data_of(name, settings), torch.get_rng_state()
    given = copy.deepcopy(data.train)
    first, again, other = (attack.craft(given, context(seed, data)) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state), "global random state was used"
    assert same(given, data.train), "the training rows were changed"
    for part in ("rows", "inputs", "targets"):
        assert torch.equal(getattr(first, part), getattr(again, part))
    assert first.evidence.keys() == again.evidence.keys()
    assert all(torch.equal(first.evidence[key], again.evidence[key]) for key in first.evidence)
    assert torch.equal(first.rows, attack.choose_rows(data.train, context(1, data)))
    if settings.get("mode") != "hard":  # which asks the model, not chance
        assert not torch.equal(first.rows, other.rows)


@each
@devices
def test_poisons_are_valid_rows(name, settings, device):
    data = data_of(name, settings).to(device)
    poisoned = build(name, settings).craft(data.train, context(data=data))
    assert len(poisoned.rows) == len(poisoned.inputs) == len(poisoned.targets)
    assert abs(len(poisoned.rows) - FRACTION * 60) < 1  # an even number where the attack needs one
    assert len(poisoned.rows.unique()) == len(poisoned.rows)
    assert poisoned.rows.min() >= 0 and poisoned.rows.max() < 60
    assert poisoned.targets.min() >= 0 and poisoned.targets.max() < CLASSES
    base = data.train.rows(poisoned.rows)
    for made, clean in ((poisoned.inputs, base.inputs), (poisoned.targets, base.targets)):
        assert (made.shape, made.dtype, made.device) == (clean.shape, clean.dtype, clean.device)
    assert poisoned.inputs.isfinite().all()
    moved = (poisoned.inputs != base.inputs).flatten(1).any(1) | (poisoned.targets != base.targets)
    assert moved.all(), "a poison is a clean row"


@each
def test_applying_marks_the_poisons_and_leaves_other_rows_alone(name, settings):
    train = data_of(name, settings).train
    poisoned = build(name, settings).craft(train, context(data=data_of(name, settings)))
    full, mask = poisoned.apply(train)
    clean = full.rows(~mask)
    assert int(mask.sum()) == len(poisoned.rows)
    if poisoned.mode == "append":
        assert same(clean, train)
        assert len(full.ids.unique()) == len(full)
        return
    kept = torch.ones(60, dtype=torch.bool)
    kept[poisoned.rows] = False
    assert torch.equal(mask, ~kept) and torch.equal(full.ids, train.ids)
    assert same(clean, train.rows(kept))
    assert same(full.rows(poisoned.rows), Examples(poisoned.inputs, poisoned.targets, train.ids[poisoned.rows]))


@each
@devices
def test_probes_are_held_out_rows(name, settings, device):
    attack, data = build(name, settings), data_of(name, settings).to(device)
    given = copy.deepcopy(data.test)
    probes, again = (attack.probes(given, context(data=data)) for _ in range(2))
    assert same(given, data.test), "the held-out rows were changed"
    assert "unseen" in probes
    for key, probe in probes.items():
        rows, given = probe.examples, data.validation if key == "targeted" else data.test  # the attacker picked those
        assert same(rows, again[key].examples)
        assert len(rows) > 0 and rows.inputs.isfinite().all()
        assert rows.inputs.shape[1:] == given.inputs.shape[1:] and len(rows.inputs) == len(rows.targets)
        assert rows.targets.min() >= 0 and rows.targets.max() < CLASSES
        assert set(rows.ids.tolist()) <= set(given.ids.tolist())
        if probe.true is not None:
            own = dict(zip(given.ids.tolist(), given.targets.tolist(), strict=True))
            assert probe.true.tolist() == [own[i] for i in rows.ids.tolist()]
            assert (probe.true != rows.targets).all()


@each
def test_smaller_fractions_are_contained_in_larger_ones(name, settings):
    """In the same order, so that evidence of the smaller is the beginning of that of the larger."""
    if name == "bundle":
        pytest.skip("later parts make room for the first")
    data = data_of(name, settings)
    sets = [build(name, settings, f).choose_rows(data.train, context(data=data)) for f in (0.1, 0.15, 0.25)]
    for smaller, larger in itertools.pairwise(sets):
        assert torch.equal(larger[: len(smaller)], smaller)
        assert len(smaller) < len(larger)


@each
def test_poisons_do_not_depend_on_held_out_rows(name, settings):
    attack, data = build(name, settings), data_of(name, settings)
    validation = data.validation if name == "gradient_matching" else data.train  # where that attack's targets are
    other = replace(data, validation=validation, test=data.train)
    first, second = (attack.craft(data.train, context(data=given)) for given in (data, other))
    assert torch.equal(first.inputs, second.inputs)


@each
@devices
def test_the_evaluator_gives_the_primary_metric(name, settings, device):
    attack, data = build(name, settings), data_of(name, settings).to(device)
    net = Gpt2(layers=1, width=16) if data.tokenizer else Mlp(hidden=(6,))
    scenario = Scenario(data, net, Recipe(epochs=1), attack, seed=0, device=torch.device(device))
    poisoned = attack.craft(data.train, context(data=data))
    constants = {key.removeprefix("array.") for key in poisoned.evidence if key.startswith("array.")}
    assert constants <= {array for family in families().values() for array in family.needs}
    metrics = build_evaluator(scenario, poisoned, data.test, {})(scenario.fresh_model("train"))
    assert math.isfinite(metrics[attack.primary.metric]) and metrics[attack.primary.error] > 0
    assert 0 <= metrics["membership_auc"] <= 1
