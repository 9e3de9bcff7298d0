"""Sweeps on frozen features."""

import pytest

from sweeps.config.spec import Sweep
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.sweeps.tiny import raw, run_fresh

FEATURES = {
    "name": "features",
    "base": {"name": "digits", "size": 8},
    "model": {"name": "mlp", "hidden": [12]},
    "recipe": {"epochs": 2, "lr": 0.05},
    "train_rows": 300,
    "held_out_rows": 90,
}
GC = {"name": "gradient_canceling", "box": False, "fraction": 0.3}


def sweep():
    return Sweep.from_dict(raw(dataset=FEATURES, rows={}, attacks=[GC], methods=["gd"]))


def test_an_extractor_is_trained_once_for_all_processes(tmp_path, monkeypatch):
    first = ScenarioCache(sweep(), RunEnvironment(tmp_path)).dataset
    monkeypatch.setattr("unlearn_core.datasets.features.train_body", lambda *a, **k: pytest.fail("trained again"))
    again = ScenarioCache(sweep(), RunEnvironment(tmp_path)).dataset
    assert again.digest == first.digest
    assert (again.train.inputs == first.train.inputs).all()


def test_settings_make_the_round_trip():
    spec = sweep()
    assert Sweep.from_dict(spec.to_dict()) == spec
    assert Sweep.from_dict(spec.to_dict()).identity() == spec.identity()


@pytest.mark.slow
def test_a_sweep_runs_on_features(tmp_path):
    trials = run_fresh(sweep(), tmp_path)
    assert not [trial.error for trial in trials if trial.error]
    corrupted = next(t for t in trials if t.method == "none")
    assert corrupted.corrupted_test_accuracy < corrupted.oracle_test_accuracy
    assert {t.dataset for t in trials} == {"features"}
