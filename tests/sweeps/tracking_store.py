"""What a tracking store of any kind holds, read from its database, and whether it is what the records say."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sqlalchemy

from sweeps.schema.lines import to_content
from sweeps.schema.records import Trial
from sweeps.storage.record_log import read_trials
from tests.sweeps.tiny import ROOT

RUNS = """
SELECT r.run_uuid, r.status, k.value AS key, p.value AS parent
FROM runs r JOIN experiments e ON e.experiment_id = r.experiment_id
JOIN tags k ON k.run_uuid = r.run_uuid AND k.key = 'sweep.key'
LEFT JOIN tags p ON p.run_uuid = r.run_uuid AND p.key = 'mlflow.parentRunId'
WHERE e.name = :name AND r.lifecycle_stage = 'active'
"""
OF_TRIAL = ("corrupted_value", "oracle_value", "corrupted_test_accuracy", "oracle_test_accuracy")


class Store:
    """The database behind a server."""

    def __init__(self, uri: str, **connect: Any) -> None:
        self.engine = sqlalchemy.create_engine(uri, connect_args=connect, poolclass=sqlalchemy.NullPool)

    def rows(self, query: str, **values: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return list(connection.execute(sqlalchemy.text(query), values))

    def runs(self, name: str) -> dict[str, dict[str, Any]]:
        """Active runs of an experiment by key; fails on a key with two runs."""
        found = self.rows(RUNS, name=name)
        keys = {row.run_uuid: row.key for row in found}
        runs = {row.key: {"status": row.status, "parent": keys.get(row.parent)} for row in found}
        assert len(runs) == len(found)
        for row in found:
            query = "SELECT key, {} FROM {} WHERE run_uuid = :run"
            points = self.rows(query.format("step, timestamp, value", "metrics"), run=row.run_uuid)
            runs[row.key]["metrics"] = sorted(map(tuple, points))
            runs[row.key]["params"] = dict(map(tuple, self.rows(query.format("value", "params"), run=row.run_uuid)))
            latest = self.rows(query.format("value", "latest_metrics"), run=row.run_uuid)
            runs[row.key]["latest"] = dict(map(tuple, latest))
        return runs

    def count(self, name: str) -> int:
        return len(self.rows(RUNS, name=name))

    def assert_has(self, sweep_dir: Path, name: str) -> None:
        """Every trial and study of the records has one finished run with all its values, and there is nothing else."""
        trials, runs = read_trials(sweep_dir), self.runs(name)
        studies = {trial.study for trial in trials}
        assert len(trials) > 0
        assert set(runs) == {"sweep", *(f"study/{s}" for s in studies), *(f"trial/{t.trial_id}" for t in trials)}
        assert runs["sweep"]["status"] == "FINISHED"
        for trial in trials:
            run = runs[f"trial/{trial.trial_id}"]
            assert run["metrics"] == numbers(trial)
            assert run["params"].items() >= {"method": trial.method, "seed": str(trial.seed)}.items()
            assert (run["parent"], run["status"]) == (f"study/{trial.study}", "FINISHED")
        for study in studies:
            run = runs[f"study/{study}"]
            assert (run["parent"], run["status"]) == ("sweep", "FINISHED")
            shown = {key: value for key, value in run["latest"].items() if key.startswith("best_score.")}
            assert shown == best([trial for trial in trials if trial.study == study])


def numbers(trial: Trial) -> list[tuple[str, int, int, float]]:
    """All finite numbers of a trial as rows of its run: (name, budget in per mille, milliseconds, value)."""
    content = to_content(trial)
    found = {(name, 0): content[name] for name in OF_TRIAL}
    for rung in content["rungs"]:
        for name, value in (rung | rung["metrics"]).items():
            if name != "budget" and not name.startswith("retrain_at_budget_"):
                found[name, round(1000 * rung["budget"])] = value
    end = round(1000 * content["finished_at"])
    return sorted((name, step, end, value) for (name, step), value in found.items() if is_number(value))


def best(trials: list[Trial]) -> dict[str, float]:
    scores: dict[str, float] = {}
    for trial in trials:
        for rung in trial.rungs if trial.stage == "tuning" else []:
            name = f"best_score.{round(1000 * rung.budget):03d}"
            if is_number(rung.score):
                scores[name] = max(scores.get(name, -math.inf), rung.score)
    return scores


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def start_sync(sweep_dir: Path, uri: str) -> subprocess.Popen[str]:
    """A sync in a process of its own, as `--sync-mlflow` starts it."""
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri}
    command = [sys.executable, "-m", "sweeps.tracking.sync", str(sweep_dir)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, cwd=ROOT
    )


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
