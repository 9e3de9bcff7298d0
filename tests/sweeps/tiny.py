"""A sweep that takes a fraction of a second, and what the tests of this folder ask of its records."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from sweeps.config.spec import Sweep
from sweeps.execution.run_task import Worker, run_task
from sweeps.planning.task_list import reference_tasks, study_tasks
from sweeps.planning.tasks import Task
from sweeps.schema.lines import from_content, to_content
from sweeps.schema.records import SCHEMA_VERSION, Trial
from sweeps.storage.record_log import RecordWriter, read_trials
from sweeps.storage.table import compact
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from sweeps.trials.trial import Request
from unlearn_core.registry import UNLEARNERS

ROOT = Path(__file__).parents[2]
RAW: dict[str, Any] = {
    "name": "tiny",
    "dataset": {"name": "digits", "size": 8},
    "rows": {"train_rows": 200, "held_out_rows": 120},
    "model": "linear",
    "recipe": {"epochs": 6, "batch_size": 50, "lr": 0.05},
    "attacks": [{"name": "badnets", "fraction": 0.1, "size": 2}],
    "methods": ["gd", "ssd"],
    "budgets": [0.1, 0.3],
    "search": {"trials": 3, "startup": 1},
    "seeds": {"tuning": [0], "confirmation": [1]},
}
TIMES = {
    "finished_at", "machine", "code_version", "seconds", "seconds_share", "oracle_seconds", "trial_seconds",
    "evaluation_seconds", "craft_seconds", "surrogate_seconds", "victim_seconds",
}  # fmt: skip
"""What two runs of the same trial may differ in."""


def raw(**changes: Any) -> dict[str, Any]:
    """Settings of the tiny sweep, with whole sections exchanged."""
    return copy.deepcopy(RAW | changes)


def tiny(**changes: Any) -> Sweep:
    return Sweep.from_dict(raw(**changes))


def tasks(sweep: Sweep) -> list[Task]:
    return [*reference_tasks(sweep), *study_tasks(sweep)]


def run_all(work: ScenarioCache, sweep_dir: Path) -> int:
    """Every task in order, in this process; returns the number of new trials."""
    return sum(run_task(task, Worker(work, sweep_dir)) for task in tasks(work.sweep))


def run_fresh(sweep: Sweep, out: Path) -> list[Trial]:
    """An undisturbed run."""
    run_all(ScenarioCache(sweep, RunEnvironment(out)), out / sweep.name)
    return read_trials(out / sweep.name)


def bare_trial(number: int, **changes: Any) -> Trial:
    """A trial with what every record has, and nothing else."""
    return from_content(bare_content(number, **changes))


def bare_content(number: int, **changes: Any) -> dict[str, Any]:
    """What the line of such a trial holds."""
    names = {"trial_id": f"t{number}", "stage": "tuning", "study": "a--gd", "attack": "a", "method": "gd"}
    empty = {"settings": '{"name": "gd"}', "proposal": number, "error": None, "rungs": []}
    return {"schema": SCHEMA_VERSION, "seed": 0} | names | empty | changes


def record(sweep_dir: Path, trials: Sequence[Trial]) -> None:
    """Record trials that were made elsewhere, in the tasks that they are of."""
    writers = {trial.study: RecordWriter(sweep_dir, trial.study) for trial in trials}
    for trial in trials:
        writers[trial.study].append(trial)


def compacted(sweep_dir: Path) -> Path:
    """The sweep's `records.parquet`, made now."""
    table = compact(sweep_dir)
    assert table is not None
    return table.path


def science(trials: Sequence[Trial]) -> dict[str, Any]:
    """By trial id: everything that must be equal in every run of the same sweep."""
    return {trial.trial_id: _timeless(to_content(trial)) for trial in trials}


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in TIMES}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def lines(sweep_dir: Path) -> list[str]:
    """All recorded lines, so that work done twice shows."""
    return [line for part in sorted(sweep_dir.glob("records/*/*.jsonl")) for line in part.read_text().splitlines()]


def write_config(folder: Path, **changes: Any) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(raw(**changes)))
    return path


def command(*arguments: Any) -> list[str]:
    return [sys.executable, str(ROOT / "sweeps" / "budget_sweep.py"), *map(str, arguments)]


def start(*arguments: Any, **options: Any) -> subprocess.Popen[str]:
    """The real command in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def prepare(sweep: Sweep, out: Path) -> Path:
    """The sweep's folder, as a driver leaves it to the workers."""
    folder = out / sweep.name
    folder.mkdir()
    (folder / "sweep.json").write_text(json.dumps({"spec": sweep.to_dict()}))
    return folder


def request_of(**changes: Any) -> Request:
    base = Request(
        attack="badnets", seed=1, discovery_rate=1.0, stage="tuning", method="gd", settings=UNLEARNERS.get("gd")(),
        budgets=(0.1,), study="s",
    )  # fmt: skip
    return replace(base, **changes)
