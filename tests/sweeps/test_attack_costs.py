"""What an attack cost is recorded, and found again with its poisons in the store."""

from __future__ import annotations

from pathlib import Path

from sweeps.schema.records import TRIAL_COLUMNS
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.sweeps.conftest import Done
from tests.sweeps.tiny import tiny

BY_MARGIN = {"name": "label_flip", "label": "near", "fraction": 0.1, "mode": "hard"}
COSTS = ("craft_flops", "craft_seconds", "surrogate_flops", "surrogate_seconds", "victim_flops", "victim_seconds")


def test_records_tell_what_the_attack_cost(done: Done) -> None:
    assert {"poisons", *COSTS} <= TRIAL_COLUMNS.keys()
    for trial in done.trials:
        assert trial.poisons == trial.discovered / trial.discovery_rate == 20
        assert trial.craft_seconds > 0
        assert trial.craft_flops == trial.surrogate_flops == trial.surrogate_seconds == 0  # a patch
        assert trial.victim_flops > trial.oracle_flops  # it has the poisons in addition
        assert trial.victim_seconds > 0


def test_poisons_from_the_store_tell_what_they_cost_when_they_were_made(tmp_path: Path) -> None:
    sweep = tiny(attacks=[BY_MARGIN], methods=["gd"])
    first = ScenarioCache(sweep, RunEnvironment(tmp_path)).bench("near", 0, "validation")
    again = ScenarioCache(sweep, RunEnvironment(tmp_path)).bench("near", 0, "validation")
    assert first.crafting == again.crafting
    assert first.crafting["flops"] > 0  # all rows are ranked by their margin
    assert first.crafting["surrogate_flops"] > first.corrupted.cost.flops * 0.9  # one training on all rows
    assert first.crafting["surrogate_seconds"] > 0
