"""Defects of published reports: results that are read by position, or under another name than they were written."""

from __future__ import annotations

import json
import math
from pathlib import Path

from analysis.reading.load import load_sweep
from sweeps.storage.record_log import read_trials
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.sweeps.tiny import compacted, run_all, tiny
from unlearn_core.registry import ATTACKS


def test_defect_12_attacks_have_one_name_from_settings_to_report(tmp_path: Path) -> None:
    """And everything that is written is read by its name: never by position, nor a list by text."""
    attacks = [{"name": "badnets", "label": "patch-2", "fraction": 0.1, "size": 2}]
    sweep = tiny(methods=["gd"], attacks=attacks)
    run_all(ScenarioCache(sweep, RunEnvironment(tmp_path)), tmp_path / "tiny")
    trials = read_trials(tmp_path / "tiny")
    (tmp_path / "tiny" / "sweep.json").write_text(json.dumps({"spec": sweep.to_dict()}))
    compacted(tmp_path / "tiny")
    rows = load_sweep(tmp_path / "tiny").rows
    assert set(rows["attack"]) == {trial.attack for trial in trials} == set(sweep.attacks) == {"patch-2"}
    assert {json.loads(trial.attack_settings)["name"] for trial in trials} <= set(ATTACKS.names())
    told = {(t.trial_id, r.budget): r.test_accuracy for t in trials for r in t.rungs}
    for row in rows.itertuples():
        assert math.isclose(row.test_accuracy, told[row.trial_id, row.budget])
