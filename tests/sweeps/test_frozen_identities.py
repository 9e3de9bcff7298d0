"""What identifies sweeps and their parts in results on disk: no change of the code may change it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sweeps.config.overrides import apply
from sweeps.config.presets import preset_names, read_preset
from sweeps.config.spec import Sweep
from sweeps.hypotheses.spec import Hypotheses
from sweeps.hypotheses.spec import preset_names as hypotheses_names
from sweeps.hypotheses.spec import read_preset as read_hypotheses
from sweeps.schema.digest import digest
from unlearn_core.registry import UNLEARNERS

FROZEN = json.loads((Path(__file__).parent / "frozen" / "identities.json").read_text())
REFERENCES = ("retrain", "retrain_at_budget", "retrain_discovered")
VARIANTS = {
    "numbers as text": ["recipe.lr=1e-3", "recipe.epochs='3'", "recipe.milestones=['0.25', 1]", "utility_tolerance=0"],
    "every section": [
        *("rows={train_rows: 600, held_out_rows: 300, validation_share: 0.5, side: 16}", "budgets=[0.01, 1]"),
        *("discovery_rates=[single, 0.5, 1]", "seeds={tuning: [7], confirmation: [8, 9]}", "resources.cpus=2"),
        *("search={mode: best, sampler: random, trials: 3, startup: 0, batch: 1, grid_points: 2, seed: 5}",),
        "ensemble={members: 8, scenarios: 2}",
    ],
    "fixed settings": ["methods=[{name: scrub, fixed: {alpha: 1}}, {name: gd, fixed: {lr: '0.1'}}]"],
    "two attacks in one": ["attacks=[{name: bundle, label: both, parts: [badnets, {name: gaussian, epsilon: 1}]}]"],
    "a label": ["attacks=[{name: badnets, label: a.b=c_1}]", "methods=[]"],
}
"""Changes to `quick` beside what the presets use."""


def made(name: str) -> Sweep:
    """A preset, or a variant of `quick`."""
    raw = apply(read_preset("quick"), VARIANTS[name]) if name in VARIANTS else read_preset(name)
    return Sweep.from_dict(raw)


def identities(sweep: Sweep) -> dict[str, Any]:
    """Of the sweep, of its canonical form section by section, and of its scenario groups."""
    sections = {name: digest(value) for name, value in sweep.to_dict().items() if name != "plugins"}
    groups = {label: digest(sweep.group(label, "data")) for label in sweep.attacks}
    return {"identity": sweep.identity(), "canonical": digest(sweep.to_dict()), **sections, "groups": groups}


def defaults() -> dict[str, str]:
    """All settings of every method at their defaults."""
    names = [name for name in UNLEARNERS.names() if name not in REFERENCES]
    whole = Sweep.from_dict(read_preset("quick") | {"methods": names})
    return {name: digest(vars(method.build({}))) for name, method in whole.methods.items()}


@pytest.mark.parametrize("name", FROZEN["sweeps"])
def test_identities_of_sweeps(name: str) -> None:
    assert identities(made(name)) == FROZEN["sweeps"][name]


def test_every_preset_is_frozen() -> None:
    assert set(FROZEN["sweeps"]) == {*preset_names(), *VARIANTS}
    assert set(FROZEN["hypotheses"]) == set(hypotheses_names())


@pytest.mark.parametrize("name", FROZEN["hypotheses"])
def test_canonical_forms_of_hypotheses(name: str) -> None:
    assert digest(Hypotheses.from_dict(read_hypotheses(name)).to_dict()) == FROZEN["hypotheses"][name]


def test_defaults_of_all_methods() -> None:
    assert defaults() == FROZEN["methods"]
