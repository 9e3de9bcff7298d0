"""Every preset that is shipped."""

from __future__ import annotations

import json

import pytest
import yaml

from sweeps.proposals import proposal_count
from sweeps.spec import PRESETS, Sweep, preset_names, read_preset
from tests.sweeps.tiny import cells
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
    names = [cell.name for cell in cells(sweep)]
    assert len(set(names)) == len(names)
    if sweep.search.mode == "fair":
        assert all(proposal_count(sweep.search, {m: method}) >= 1 for m, method in sweep.methods.items())


def test_the_default_needs_nothing_but_this_machine() -> None:
    sweep = Sweep.from_dict(read_preset("quick"))
    assert isinstance(sweep.dataset[1], Digits)
    assert sweep.resources.gpus == 0
