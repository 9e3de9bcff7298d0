"""What is counted from `sweep.json` alone is what the whole sweep would count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sweeps.config.outline import Outline, RecordedSweep, outline_of
from sweeps.config.presets import preset_names
from sweeps.config.spec import Sweep
from sweeps.planning.missing import missing
from sweeps.planning.task_list import reference_tasks, study_tasks
from tests.sweeps.tiny import tiny
from unlearn_core.registry import UNLEARNERS


def counts(sweep: Outline) -> dict[str, int]:
    return {task.name: task.most_trials(sweep) for task in (*reference_tasks(sweep), *study_tasks(sweep))}


def recorded(sweep: Sweep) -> Outline:
    return outline_of(json.loads(json.dumps(sweep.to_dict())))


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_has_the_same_tasks_and_trials(name: str, tmp_path: Path) -> None:
    sweep = Sweep.preset(name)
    outline = recorded(sweep)
    assert isinstance(outline, RecordedSweep)
    assert counts(outline) == counts(sweep)
    assert missing(outline, tmp_path) == missing(sweep, tmp_path)
    assert (outline.resources, outline.scenario_seeds) == (sweep.resources, sweep.scenario_seeds)


@pytest.mark.parametrize(
    "changes",
    [
        {"search": {"sampler": "grid", "grid_points": 2}, "methods": [{"name": "scrub", "fixed": {"lr": 0.1}}]},
        {"search": {"mode": "best", "trials": 7}, "methods": ["gd", "ssd"]},
        {"discovery_rates": [1, 0.5, "single"], "ensemble": {"members": 8, "scenarios": 1}},
        {"methods": []},
    ],
)
def test_grids_best_rates_and_ensembles_count_alike(changes: dict[str, Any]) -> None:
    sweep = tiny(**changes)
    assert counts(recorded(sweep)) == counts(sweep)


def test_a_method_of_a_plugin_is_read_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(UNLEARNERS._items, "of_a_plugin", UNLEARNERS.get("gd"))
    sweep = tiny(methods=["of_a_plugin"])
    assert isinstance(recorded(sweep), Sweep)
    assert counts(recorded(sweep)) == counts(sweep)


def test_a_folder_of_an_older_version_is_read_in_full() -> None:
    older = tiny().to_dict()
    del older["ensemble"]
    assert counts(outline_of(older)) == counts(tiny())
