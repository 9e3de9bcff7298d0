"""Several attacks in one training set: each is what it would be alone, and they keep out of each other's way."""

import math
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import pytest
import torch
from scipy.stats import kstest

from tests.contracts.tiny import CPU, model
from tests.core.attacks.scenes import DATA, TEXT, context, craft
from unlearn_core.attacks import (
    BadNets,
    Blended,
    Bundle,
    Gaussian,
    GradientCanceling,
    InterclassConfusion,
    LabelFlip,
    Sig,
    TextBackdoor,
)
from unlearn_core.attacks.rows import base_order
from unlearn_core.checks import InputError
from unlearn_core.gradients.input_gradients import input_gradients, noise_alignment
from unlearn_core.metrics import measures_poisons
from unlearn_core.models import Mlp
from unlearn_core.registry import ATTACKS
from unlearn_core.scenarios.scenario import Scenario, build_evaluator, clean_rows
from unlearn_core.training import Recipe
from unlearn_core.types import Composite, Examples, Poisoned, Primary, Probe

ALONE = [
    Gaussian(fraction=0.1),
    BadNets(fraction=0.1, size=2),
    LabelFlip(fraction=0.1, mode="permute"),
    InterclassConfusion(fraction=0.1, first=0, second=2),
    Sig(fraction=0.1, frequency=2),
]
THREE = Bundle(parts=(Gaussian(fraction=0.1), BadNets(fraction=0.15, size=2), LabelFlip(fraction=0.05)))


def scene(attack, data=DATA, *, epochs=1, seed=0):
    return Scenario(data, Mlp(hidden=(64,)), Recipe(epochs=epochs, batch_size=50, lr=0.05), attack, seed, CPU)


def equal(first, second):
    """Whether two lots of poisons are the same, value by value, evidence included."""
    parts = all(torch.equal(getattr(first, k), getattr(second, k)) for k in ("rows", "inputs", "targets"))
    shared = first.evidence.keys() == second.evidence.keys()
    return parts and shared and all(torch.equal(first.evidence[k], second.evidence[k]) for k in first.evidence)


@pytest.mark.parametrize("attack", ALONE, ids=lambda a: type(a).__name__)
def test_a_bundle_of_one_part_is_that_attack_bit_for_bit(attack):
    bundle = Bundle(parts=(attack,))
    alone, whole = craft(attack), craft(bundle)
    assert torch.equal(whole.rows, bundle.choose_rows(DATA.train, context()))
    (part,) = bundle.separate(whole).values()
    assert part.attack is attack and equal(part.poisoned, alone)
    for one, other in zip(alone.apply(DATA.train), whole.apply(DATA.train), strict=True):
        first, second = ((vars(x).values() if isinstance(x, Examples) else [x]) for x in (one, other))
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("attack", ALONE, ids=lambda a: type(a).__name__)
def test_a_bundle_of_one_part_is_measured_as_that_attack(attack):
    bundle = Bundle(parts=(attack,))
    alone, whole = scene(attack), scene(bundle)
    net = alone.fresh_model("train")
    name = bundle.primary_part
    poisons = {one: craft(one) for one in (attack, bundle)}
    values = build_evaluator(alone, poisons[attack], DATA.test, {"corrupted": net, "oracle": model_of(alone, 1)})(net)
    found = build_evaluator(whole, poisons[bundle], DATA.test, {"corrupted": net, "oracle": model_of(whole, 1)})(net)
    shared = {column for column in values if not column.startswith(("gaussian", "backdoor", "interclass", "other"))}
    assert same_numbers(values, found, shared)
    own = {column for column in values if measures_poisons(column) and not column.startswith(("l1_", "l2_", "shift_"))}
    assert same_numbers(values, {c.removeprefix(f"{name}."): v for c, v in found.items() if "." in c}, own)
    primary = Primary(*(column and f"{name}.{column}" for column in attack.primary[:2]), *attack.primary[2:])
    assert bundle.primary[:3] == primary[:3] and found[primary.metric] == values[attack.primary.metric]
    assert (bundle.fraction, bundle.regularity) == (attack.fraction, attack.regularity)


def model_of(scenario, seed):
    return replace(scenario, seed=seed).fresh_model("train")


def same_numbers(first, second, names):
    """Bit for bit; undefined is the same as undefined."""
    assert names
    return all(first[n] == second[n] or (math.isnan(first[n]) and math.isnan(second[n])) for n in names)


def test_parts_take_rows_in_turn_from_the_one_order():
    order = base_order(DATA.train, context()).tolist()
    parts = THREE.separate(craft(THREE))
    rows = {name: part.poisoned.rows.tolist() for name, part in parts.items()}
    assert rows["gaussian"] == order[:6]
    free = [row for row in order[6:] if DATA.train.targets[row] != 0]
    assert rows["badnets"] == free[:9]
    assert rows["label_flip"] == [row for row in order[6:] if row not in rows["badnets"]][:3]
    assert torch.equal(craft(THREE).rows, torch.cat([part.poisoned.rows for part in parts.values()]))


@pytest.mark.parametrize("seed", range(5))
def test_each_part_makes_of_its_rows_what_it_would_alone(seed):
    """Its random streams do not know of the others: noise and labels are those of the same rows in a large poison."""
    whole = craft(THREE, seed)
    for name, part in THREE.separate(whole).items():
        everything = craft(replace(part.attack, fraction=0.5), seed)
        place = {int(row): i for i, row in enumerate(everything.rows)}
        chosen = [i for i, row in enumerate(part.poisoned.rows.tolist()) if row in place]
        there = torch.tensor([place[int(part.poisoned.rows[i])] for i in chosen])
        assert len(chosen) > 1, name
        assert torch.equal(part.poisoned.inputs[chosen], everything.inputs[there])
        assert torch.equal(part.poisoned.targets[chosen], everything.targets[there])
        for key in part.poisoned.evidence.keys() - {"epsilon"}:
            assert torch.equal(part.poisoned.evidence[key][chosen], everything.evidence[key][there])


def test_what_is_forgotten_and_the_oracle_are_those_of_all_parts():
    whole = craft(THREE)
    assert len(whole.rows) == len(whole.rows.unique()) == 6 + 9 + 3
    full, mask = whole.apply(DATA.train)
    assert int(mask.sum()) == 18 and len(clean_rows(whole, DATA.train)) == 42
    for part in THREE.separate(whole).values():
        assert torch.equal(full.inputs[part.poisoned.rows], part.poisoned.inputs)
        assert torch.equal(full.targets[part.poisoned.rows], part.poisoned.targets)


def test_the_parts_columns_are_those_of_the_part_alone_on_the_same_model():
    """And evidence and probes do not get mixed up: two backdoors, each with its own trigger and target."""
    bundle = Bundle(
        parts=(BadNets(fraction=0.1, size=2), Blended(fraction=0.1, target=1), Gaussian(fraction=0.1)),
        primary_part="blended",
    )
    whole, net = craft(bundle), model("mlp")
    found = build_evaluator(scene(bundle), whole, DATA.test, {})(net)
    for name, part in bundle.separate(whole).items():
        alone = build_evaluator(scene(part.attack), part.poisoned, DATA.test, {})(net)
        columns = {c for c in alone if c.startswith(("backdoor", "gaussian", "forget", "healed", "membership"))}
        assert same_numbers(alone, {c.removeprefix(f"{name}."): v for c, v in found.items() if name in c}, columns)
    assert found["badnets.backdoor_success"] != found["blended.backdoor_success"]
    assert "backdoor_success" not in found and "gaussian_score" not in found
    assert "blended.test_accuracy" not in found and "test_accuracy" in found
    assert bundle.primary.metric == "blended.backdoor_success" and bundle.primary.z is None
    assert bundle.primaries["gaussian"].z == "gaussian.gaussian_z"


def test_fresh_poisons_are_those_of_the_parts_in_proportion():
    """24 rows with noise, 18 with the trigger and 24 with wrong labels give 2 : 3 : 1 of them, as many as there are."""
    unseen = THREE.probes(DATA.test, context())["unseen"].examples
    own = [part.probes(DATA.test, context())["unseen"].examples for part in THREE.parts]
    assert len(unseen) == 12 + 18 + 6
    start = 0
    for rows, count in zip(own, (12, 18, 6), strict=True):
        assert torch.equal(unseen.inputs[start : start + count], rows.inputs[:count])
        assert torch.equal(unseen.targets[start : start + count], rows.targets[:count])
        start += count


@dataclass(frozen=True, kw_only=True)
class Stubborn:
    """Poisons the first rows, whoever has them."""

    primary: ClassVar[Primary] = Primary("forget_accuracy", "forget_accuracy_se", 0.1)
    regularity: ClassVar[str] = "low"
    fraction: float = 0.05
    mode: str = "replace"

    def choose_rows(self, train, context):
        return torch.arange(3)

    def craft(self, train, context):
        return Poisoned(torch.arange(3), train.inputs[:3] + 1, train.targets[:3], mode=self.mode)

    def probes(self, held_out, context):
        return {"unseen": Probe(held_out)}


@pytest.fixture
def stubborn(monkeypatch):
    monkeypatch.setitem(ATTACKS._items, "stubborn", Stubborn)


@pytest.mark.usefixtures("stubborn")
def test_attacks_that_take_taken_rows_or_add_some_are_refused():
    twice = Bundle(parts=(Gaussian(fraction=0.5 - 0.05), Stubborn()))
    for act in (lambda: craft(twice), lambda: twice.choose_rows(DATA.train, context())):
        with pytest.raises(InputError, match="part stubborn takes rows that a part before it has"):
            act()
    with pytest.raises(InputError, match="part stubborn adds rows; a bundle holds attacks that overwrite them"):
        craft(Bundle(parts=(Stubborn(mode="append"),)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(parts=()), "parts must list different attacks and not be empty, but got \\[\\]"),
        (dict(parts=(Gaussian(), Gaussian(epsilon=2))), "different attacks .* \\['gaussian', 'gaussian'\\]"),
        (dict(parts=(Gaussian(), THREE)), "parts of a bundle cannot be bundles"),
        (dict(parts=(Gaussian(), GradientCanceling())), "part gradient_canceling is measured by test_error"),
        (dict(parts=(Gaussian(fraction=0.3), BadNets(fraction=0.3))), "fraction of all parts together .* but is 0.6"),
        (
            dict(parts=(Gaussian(),), primary_part="badnets"),
            "primary_part 'badnets' is not in parts; .* gaussian",
        ),
        (dict(parts=("gaussian",)), r"parts must be attacks, such as Gaussian\(\), but got 'gaussian'"),
        (dict(parts=(Gaussian,)), r"parts must be attacks, such as Gaussian\(\), but got <class"),
    ],
    ids=str,
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        Bundle(**settings)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((Sig(fraction=0.2), BadNets(target=99, fraction=0.01)), "target must be a class below 4"),
        ((Sig(fraction=0.2), InterclassConfusion(fraction=0.2, first=0, second=1)), "only 3 rows have the class 0"),
        ((Gaussian(fraction=0.1), TextBackdoor(fraction=0.1)), "text_backdoor needs text"),
    ],
    ids=["class", "rows", "data"],
)
def test_what_a_part_cannot_do_is_told_before_anything_is_trained(parts, message):
    with pytest.raises(InputError, match=message):
        Bundle(parts=parts).choose_rows(DATA.train, context())


def test_text_has_bundles_too():
    bundle = Bundle(parts=(TextBackdoor(fraction=0.1), LabelFlip(fraction=0.1)))
    whole = craft(bundle, data=TEXT)
    trigger, flipped = (part.poisoned for part in bundle.separate(whole).values())
    assert equal(trigger, craft(TextBackdoor(fraction=0.1), data=TEXT))
    assert torch.equal(flipped.inputs, TEXT.train.inputs[flipped.rows])


def test_only_bundles_are_made_of_others():
    assert isinstance(THREE, Composite) and not any(isinstance(attack, Composite) for attack in ALONE)


class Trained(NamedTuple):
    """The columns of a bundle for its corrupted model and its oracle; and those of each part for a model that is
    poisoned by it alone, in the same rows."""

    corrupted: dict
    oracle: dict
    alone: dict


def trained(parts, data, seed, epochs=30):
    bundle = Bundle(parts=parts)
    place = scene(bundle, data, epochs=epochs, seed=seed)
    whole = bundle.craft(data.train, place.context())
    evaluator = build_evaluator(place, whole, data.test, {})
    alone = {}
    for name, part in bundle.separate(whole).items():
        own = build_evaluator(replace(place, attack=part.attack), part.poisoned, data.test, {})
        alone[name] = own(place.train(part.poisoned.apply(data.train)[0]).model)
    full, _ = whole.apply(data.train)
    corrupted, oracle = (evaluator(place.train(rows).model) for rows in (full, clean_rows(whole, data.train)))
    return Trained(corrupted, oracle, alone)


SEEDS = range(2)
CANARY, PATCH = Gaussian(fraction=0.05, epsilon=1.0), BadNets(fraction=0.05)


@pytest.fixture(scope="module")
def gentle(all_digits):
    """Noise and two triggers, 15 % of real digits."""
    parts = (CANARY, PATCH, Blended(fraction=0.05, target=1))
    return [trained(parts, all_digits, seed) for seed in SEEDS]


@pytest.mark.slow
def test_noise_and_triggers_leave_each_other_alone(gentle):
    """Scores within two standard errors of what they are alone, successes within 4 points; all of them take."""
    for one in gentle:
        score, error = (one.alone["gaussian"][f"gaussian_score{tail}"] for tail in ("", "_se"))
        assert abs(one.corrupted["gaussian.gaussian_score"] - score) < 2 * error
        assert one.corrupted["gaussian.gaussian_z"] > 3
        for name in ("badnets", "blended"):
            success = one.corrupted[f"{name}.backdoor_success"]
            assert abs(success - one.alone[name]["backdoor_success"]) < 0.04
            assert success > 0.85 and one.oracle[f"{name}.backdoor_success"] < 0.05


@pytest.mark.slow
def test_flipped_labels_make_the_noise_better_remembered(all_digits):
    """The one interaction that is large: a model that has to remember wrong labels remembers noise, too. A bundle of
    both says more of a Gaussian poison than there would be alone, by up to a factor of 2.5."""
    scores = [trained((CANARY, LabelFlip(fraction=0.05)), all_digits, seed) for seed in SEEDS]
    ratios = [one.corrupted["gaussian.gaussian_score"] / one.alone["gaussian"]["gaussian_score"] for one in scores]
    assert all(1 < ratio < 2.5 for ratio in ratios)
    for one in scores:
        flipped = (one.corrupted["label_flip.forget_accuracy"], one.alone["label_flip"]["forget_accuracy"])
        assert abs(flipped[0] - flipped[1]) < 0.12


@pytest.mark.slow
def test_under_no_poison_the_score_of_a_part_is_standard_normal(gentle):
    """Exactly, whatever else the model was poisoned with: for fresh noise on the corrupted model, which holds both
    triggers and other noise in the same rows, and for the planted noise on the oracle."""
    for one in gentle:
        assert one.corrupted["gaussian.gaussian_null_ks"] < 1.95 / math.sqrt(2000)  # p = 0.001
        assert abs(one.corrupted["gaussian.gaussian_null_mean"]) < 4 / math.sqrt(2000)
        assert abs(one.oracle["gaussian.gaussian_z"]) < 4


def test_scores_of_a_part_are_independent_of_what_the_others_plant(all_digits):
    """A model with everything of a bundle but the noise: scores of the Gaussian parts of 40 seeds, against N(0, 1)."""
    bundle = Bundle(parts=(PATCH, LabelFlip(fraction=0.1), CANARY))
    whole, place = craft(bundle, data=all_digits), scene(bundle, all_digits, epochs=10)
    parts = bundle.separate(whole)
    rows, start = whole.apply(all_digits.train)[0], len(whole.rows) - len(parts["gaussian"].poisoned.rows)
    inputs = rows.inputs.clone()
    inputs[whole.rows[start:]] = parts["gaussian"].poisoned.evidence["base_inputs"]
    net = place.train(replace(rows, inputs=inputs)).model
    scores = []
    for seed in range(40):
        noisy = bundle.separate(craft(bundle, seed, data=all_digits))["gaussian"].poisoned
        gradients = input_gradients(net, noisy.evidence["base_inputs"], noisy.targets)
        scores.append(noise_alignment(gradients, noisy.evidence["noise"], 1.0))
    values = torch.cat(scores)
    assert kstest(values.numpy(), "norm").pvalue > 1e-3
    assert abs(float(values.mean())) < 4 / math.sqrt(len(values))
