"""Attacks that leave out the same rows have one oracle, trained once; those that do not, do not pretend to.

All draw from one seeded order. Gaussian noise, wrong labels and the all-to-all patch take any rows, so theirs are the
first; backdoors with a target class skip its rows, which would teach nothing, and share among themselves. Attacks on
single classes have rows of their own. Attacks that add rows leave out none: their oracle is a model of all clean rows.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.sweeps.tiny import tiny

ANY_ROW = [{"name": "gaussian"}, {"name": "label_flip"}, {"name": "badnets_all_to_all", "size": 2}]
NOT_THE_TARGET = [{"name": "badnets", "size": 2}, {"name": "blended"}]
ONE_CLASS = [
    {"name": "sig", "frequency": 2},
    {"name": "gradient_matching", "restarts": 1, "steps": 1},
    {"name": "interclass_confusion"},
]
ADDED = [
    {"name": "gradient_canceling", "label": "near", "steps": 1, "reach": 0.5},
    {"name": "gradient_canceling", "label": "far", "steps": 1},
]
FRACTION = 0.06


def workbench(folder: Path, attacks: list[dict[str, Any]]) -> ScenarioCache:
    sized = [{"fraction": FRACTION} | attack for attack in attacks]
    return ScenarioCache(tiny(attacks=sized, rows={"train_rows": 400, "held_out_rows": 120}), RunEnvironment(folder))


def trainings(folder: Path) -> Counter[tuple[str, str]]:
    """How many models the store holds, by the training they come from and whether poison was in it."""
    recipes = [json.loads(path.read_text())["recipe"] for path in (folder / "store" / "model").glob("*/meta.json")]
    return Counter((recipe["label"], "poisoned" if "poison" in recipe["rows"] else "clean") for recipe in recipes)


def rows_of(work: ScenarioCache, seed: int = 1) -> dict[str, frozenset[int]]:
    return {label: frozenset(work.bench(label, seed, "test").poisoned.rows.tolist()) for label in work.sweep.attacks}


@pytest.mark.parametrize("attacks", [ANY_ROW, NOT_THE_TARGET, ADDED], ids=["any row", "not the target", "added"])
def test_attacks_on_the_same_rows_share_one_oracle(tmp_path: Path, attacks: list[dict[str, Any]]) -> None:
    work = workbench(tmp_path, attacks)
    oracles = [work.bench(label, 1, "test").oracle.model.state_dict() for label in work.sweep.attacks]
    assert all(bool((one[key] == oracles[0][key]).all()) for one in oracles for key in one)
    surrogate = {("clean", "clean"): 1} if attacks is ADDED else {}  # the attacker's own, with its own initialisation
    assert trainings(tmp_path) == {("train", "poisoned"): len(attacks), ("train", "clean"): 1} | surrogate
    if attacks is not ADDED:
        assert len(set(rows_of(work).values())) == 1


def test_attacks_on_single_classes_have_oracles_of_their_own(tmp_path: Path) -> None:
    work = workbench(tmp_path, [ANY_ROW[0], NOT_THE_TARGET[0], *ONE_CLASS])
    rows = rows_of(work)
    assert all(len(own) == 24 for own in rows.values())
    assert len(set(rows.values())) == len(rows)
    assert trainings(tmp_path)["train", "clean"] == len(rows)


def test_seeds_have_oracles_of_their_own(tmp_path: Path) -> None:
    work = workbench(tmp_path, ANY_ROW[:2])
    assert rows_of(work, 1) != rows_of(work, 2)
    assert trainings(tmp_path)["train", "clean"] == 2


@pytest.mark.parametrize("attack", ["gaussian", "badnets", "label_flip", "sig", "interclass_confusion"])
def test_smaller_poisons_lie_inside_larger_ones(tmp_path: Path, attack: str) -> None:
    """The paper's three sizes; each has an oracle of its own, since it leaves out other rows."""
    size = {"size": 2} if attack == "badnets" else {}
    shares = {"small": 0.015, "middle": 0.02, "large": 0.025}
    attacks = [{"name": attack, "label": label, "fraction": share} | size for label, share in shares.items()]
    small, middle, large = rows_of(ScenarioCache(tiny(attacks=attacks), RunEnvironment(tmp_path))).values()
    assert small < middle < large if attack != "interclass_confusion" else small <= middle <= large
    assert [len(own) for own in (small, middle, large)] == ([4, 4, 4] if "class" in attack else [3, 4, 5])
    assert trainings(tmp_path)["train", "clean"] == len({small, middle, large})


def test_a_bundle_has_one_corrupted_model_and_one_oracle(tmp_path: Path) -> None:
    alone = [{"fraction": FRACTION} | attack for attack in (*ANY_ROW, *NOT_THE_TARGET)]
    work = ScenarioCache(tiny(attacks=[{"name": "bundle", "parts": alone}]), RunEnvironment(tmp_path))
    (rows,) = rows_of(work).values()
    assert len(rows) == 12 * len(alone)
    assert trainings(tmp_path) == {("train", "poisoned"): 1, ("train", "clean"): 1}


def test_the_rows_of_the_first_part_are_those_of_other_attacks(tmp_path: Path) -> None:
    """So a bundle of one part has the oracle of that attack, while poison and model are stored once more."""
    attacks = [ANY_ROW[0], {"name": "bundle", "parts": [ANY_ROW[0] | {"fraction": FRACTION}]}]
    sweep = tiny(attacks=[attacks[0] | {"fraction": FRACTION}, attacks[1]])
    assert len(set(rows_of(ScenarioCache(sweep, RunEnvironment(tmp_path))).values())) == 1
    assert trainings(tmp_path) == {("train", "poisoned"): 2, ("train", "clean"): 1}


def test_kinds_of_rows_differ(tmp_path: Path) -> None:
    """Any row, not the target's, those of the target, those of a pair: what a backdoor skips is its target class."""
    work = workbench(tmp_path, [ANY_ROW[0], NOT_THE_TARGET[0], ONE_CLASS[0], ONE_CLASS[2]])
    rows, targets = rows_of(work), work.dataset.train.targets
    assert all(a != b for a, b in itertools.combinations(rows.values(), 2))
    assert 0 not in set(targets[list(rows["badnets"])].tolist())
    assert set(targets[list(rows["sig"])].tolist()) == {0}
    assert set(targets[list(rows["interclass_confusion"])].tolist()) == {3, 5}
