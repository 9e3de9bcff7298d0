"""Every preset that is shipped."""

from __future__ import annotations

import json

import pytest
import yaml

from sweeps.config.presets import PRESETS, preset_names, read_preset
from sweeps.config.spec import Sweep
from sweeps.planning.proposals import proposal_count
from tests.sweeps.tiny import tasks
from unlearn_core.datasets import Digits


def test_there_are_presets() -> None:
    assert "quick" in preset_names()
    assert {path.stem for path in PRESETS.iterdir()} == set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_preset_loads_and_round_trips(name: str) -> None:
    sweep = Sweep.from_dict(read_preset(name))
    assert sweep.name == name
    for again in (
        sweep.to_dict(),
        json.loads(json.dumps(sweep.to_dict())),
        yaml.safe_load(yaml.safe_dump(sweep.to_dict())),
    ):
        assert Sweep.from_dict(again) == sweep
        assert Sweep.from_dict(again).identity() == sweep.identity()


@pytest.mark.parametrize("name", preset_names())
def test_preset_says_what_it_is_and_can_be_walked(name: str) -> None:
    assert (PRESETS / f"{name}.yaml").read_text().startswith("# ")
    sweep = Sweep.from_dict(read_preset(name))
    names = [task.name for task in tasks(sweep)]
    assert len(set(names)) == len(names)
    if sweep.search.mode == "fair":
        assert all(proposal_count(sweep.search, {m: method}) >= 1 for m, method in sweep.methods.items())


PAPER = [name for name in preset_names() if name.startswith("paper-") and not name.endswith("-cpu")]
EIGHT = ["gd", "ngd", "ga", "euk", "cfk", "scrub", "neggrad_plus", "ssd"]


@pytest.mark.parametrize("name", PAPER)
def test_a_preset_of_the_paper_has_its_methods_budgets_and_seeds_and_a_reduction(name: str) -> None:
    paper, small = (Sweep.from_dict(read_preset(n)) for n in (name, f"{name}-cpu"))
    assert len(paper.seeds.confirmation) == (5 if name.endswith("text") else 8)
    assert paper.budgets == small.budgets == (0.02, 0.04, 0.06, 0.08, 0.1)
    assert list(paper.methods) == list(small.methods) == EIGHT
    assert {attack for attack, _ in paper.attacks.values()} == {attack for attack, _ in small.attacks.values()}
    assert [settings.fraction for _, settings in paper.attacks.values()] == [0.015, 0.02, 0.025]
    assert paper.resources.gpus == 1 and small.resources.gpus == 0


def test_the_targeted_presets_have_ten_draws_and_more_over_their_confirmation_seeds() -> None:
    for name in ("paper-targeted", "paper-targeted-cpu"):
        sweep = Sweep.from_dict(read_preset(name))
        draws = {settings.draws * settings.targets for _, settings in sweep.attacks.values()}
        assert min(draws) * len(sweep.seeds.confirmation) >= 10


def test_the_default_needs_nothing_but_this_machine() -> None:
    sweep = Sweep.from_dict(read_preset("quick"))
    assert isinstance(sweep.dataset[1], Digits)
    assert sweep.resources.gpus == 0
