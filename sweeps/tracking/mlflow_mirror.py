"""Writes a sweep's records to MLflow: a run per study under the sweep's run, a run per trial under its study.

Whatever is sent can be sent again: runs are found by the tag `sweep.key`, rows are functions of the records, and the
mark that something is complete is written last. The only file that imports mlflow, and only inside functions: that
takes seconds, so trial workers never do.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from sweeps.schema.records import Trial
from sweeps.tracking import rows
from sweeps.tracking.data_inputs import data_input
from sweeps.tracking.record_cache import Outline, RecordCache
from sweeps.tracking.rows import MetricPoint, Summary
from sweeps.tracking.uri import sqlite_uri

DONE = ("FINISHED", "FAILED")
POINTS_PER_CALL, PARAMS_PER_CALL = 800, 100  # MLflow takes 1000 entities a call, at most 100 parameters and 100 tags
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # by default a call to a dead server fails after four minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds
}


class Run(NamedTuple):
    """A run that the tracking store has."""

    run_id: str
    status: str
    tags: dict[str, str]


@dataclass
class Mirror:
    """One sweep on a tracking store: its runs by key (`sweep`, `study/<name>`, `trial/<id>`)."""

    client: Any  # MlflowClient
    sweep_dir: Path
    name: str
    sweep_id: str
    experiment_id: str
    runs: dict[str, Run]
    records: RecordCache

    def run(self, key: str, name: str, *, parent: str, start_ms: int, tags: dict[str, str]) -> Run:
        """The run of this key, made if missing; `parent` is a run id, empty for the sweep's own run."""
        if key not in self.runs:
            links = {"sweep.id": self.sweep_id, "sweep.key": key} | ({"mlflow.parentRunId": parent} if parent else {})
            made = self.client.create_run(self.experiment_id, start_time=start_ms, run_name=name, tags=tags | links)
            self.runs[key] = Run(made.info.run_id, "RUNNING", {})
        return self.runs[key]

    def log(self, key: str, points: Sequence[MetricPoint], params: dict[str, str], tags: dict[str, str]) -> None:
        """Send rows in as few calls as MLflow allows; the tags come with the last call, after all else."""
        from mlflow.entities import Metric, Param, RunTag

        run = self.runs[key]
        settings = [Param(name, value) for name, value in params.items()]
        calls = list(zip_longest(_chunks(points, POINTS_PER_CALL), _chunks(settings, PARAMS_PER_CALL), fillvalue=()))
        for number, (some, few) in enumerate(calls := calls or [((), ())], start=1):
            marks = [RunTag(name, value) for name, value in tags.items()] if number == len(calls) else []
            self.client.log_batch(run.run_id, metrics=[Metric(*point) for point in some], params=list(few), tags=marks)
        run.tags.update(tags)

    def finish(self, key: str, status: str, end_ms: int) -> None:
        self.client.set_terminated(self.runs[key].run_id, status, end_ms)
        self.runs[key] = self.runs[key]._replace(status=status)

    def close(self, key: str, trials: Sequence[Summary]) -> None:
        """Finish a run that shows these trials, and mark that it does."""
        self.finish(key, "FINISHED", max(rows.times_ms(trial)[1] for trial in trials))
        self.log(key, [], {}, {"sweep.closed": rows.mark(trials)})


def connect(tracking_uri: str) -> Any:
    """An MlflowClient that is quiet, offline apart from its store, and quick to give up."""
    return _quiet_mlflow().MlflowClient(tracking_uri)


class DatabaseTables:
    """MLflow's tables in a database file, see `sweeps.tracking.database`."""

    def newest(self) -> str:
        _quiet_mlflow()
        from mlflow.store.db import utils

        return str(utils._get_latest_schema_revision())

    def make(self, path: Path) -> None:
        from mlflow.store.db import utils

        self._change(path, utils._initialize_tables)

    def upgrade(self, path: Path) -> None:
        from mlflow.store.db import utils

        self._change(path, utils._upgrade_db)

    @staticmethod
    def _change(path: Path, change: Callable[[Any], None]) -> None:
        from mlflow.store.db import utils

        engine = utils.create_sqlalchemy_engine(sqlite_uri(path))
        try:
            change(engine)
        finally:
            engine.dispose()


def _quiet_mlflow() -> Any:
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return mlflow


def known_runs(client: Any, experiment_id: str, sweep_id: str) -> dict[str, Run]:
    """All runs of the sweep by key. Where a key has two, the answer to a creation was lost: the unused one goes."""
    found: list[Run] = []
    token: str | None = None
    while token is None or token:
        query = f"tags.`sweep.id` = '{sweep_id}'"
        some = client.search_runs([experiment_id], query, max_results=1000, page_token=token)
        found += [Run(run.info.run_id, run.info.status, run.data.tags) for run in some]
        token = some.token or ""
    parents = {run.tags.get("mlflow.parentRunId") for run in found}
    runs: dict[str, Run] = {}
    for run in sorted(found, key=lambda run: (run.status not in DONE, run.run_id not in parents)):
        if runs.setdefault(run.tags["sweep.key"], run) is not run:
            client.delete_run(run.run_id)
    return runs


def send(to: Mirror) -> tuple[int, int]:
    """Send what is missing; returns how many trials were new and how many there are."""
    running = is_running(to.sweep_dir)  # asked before reading: what is written in between is then sent next time
    trials = to.records.outlines()  # in the order in which each study grew, so an earlier sync saw a prefix of it
    start_ms = min((rows.times_ms(trial)[0] for trial in trials), default=round(1000 * time.time()))
    root = to.run("sweep", to.name, parent="", start_ms=start_ms, tags={})
    studies: dict[str, list[Outline]] = {}
    for trial in trials:
        studies.setdefault(trial.study, []).append(trial)
    new = sum(_send_study(to, study, studies[study], running=running) for study in studies)
    if root.tags.get("sweep.synced") != rows.mark(trials):
        to.log("sweep", [], {}, rows.group_tags(trials) | {"sweep.synced": rows.mark(trials)})
    _log_data(to)
    for name in ("sweep.json", "report"):
        _upload(to, name)
    if trials and not running and root.tags.get("sweep.closed") != rows.mark(trials):
        to.close("sweep", trials)
    _drop_twins(to)
    return new, len(trials)


def _drop_twins(to: Mirror) -> None:
    """Delete runs that nobody knows: MLflow repeats a request whose answer is late, and both make a run."""
    known = {run.run_id for run in to.runs.values()}
    query = f"tags.`sweep.id` = '{to.sweep_id}' AND attributes.status = 'RUNNING'"  # a run that is finished is known
    for run in to.client.search_runs([to.experiment_id], query, max_results=1000):
        if run.info.run_id not in known:
            to.client.delete_run(run.info.run_id)


def _send_study(to: Mirror, study: str, outlines: Sequence[Outline], *, running: bool) -> int:
    """Send a study's trials, then its own rows, then the mark that covers them; returns how many trials were new."""
    key = f"study/{study}"
    run = to.run(key, study, parent=to.runs["sweep"].run_id, start_ms=rows.times_ms(outlines[0])[0], tags={})
    if _is_sent(to, key, outlines, running=running):
        return 0
    trials = to.records.whole(outlines)
    sent = sum([_send_trial(to, run.run_id, trial) for trial in trials])
    text = run.tags.get("sweep.synced", "")
    since, before = rows.marked(text, trials), rows.count(text)
    if since < len(trials):
        points = rows.best_points(trials, since, closing=since < before) + rows.confirmed_points(trials, since)
        to.log(key, points, {}, rows.group_tags(trials) | {"sweep.synced": rows.mark(trials)})
    if not running and run.tags.get("sweep.closed") != rows.mark(trials):
        to.close(key, trials)
    return max(sent, len(trials) - before)


def _is_sent(to: Mirror, key: str, trials: Sequence[Summary], *, running: bool) -> bool:
    """Whether a study and all its trials are there as they should be."""
    marks = ("sweep.synced",) if running else ("sweep.synced", "sweep.closed")
    have = (to.runs.get(f"trial/{trial.trial_id}") for trial in trials)
    return all(run is not None and run.status in DONE for run in have) and all(
        to.runs[key].tags.get(mark) == rows.mark(trials) for mark in marks
    )


def _send_trial(to: Mirror, parent: str, trial: Trial) -> bool:
    """Whether the trial was new. Its run's final status is the mark that all its rows are there."""
    key = f"trial/{trial.trial_id}"
    if key in to.runs and to.runs[key].status in DONE:
        return False
    start_ms, end_ms = rows.times_ms(trial)
    to.run(key, rows.run_name(trial), parent=parent, start_ms=start_ms, tags=rows.tags(trial))
    to.log(key, rows.points(trial), rows.params(trial), {})
    to.finish(key, rows.run_status(trial), end_ms)
    return True


def _log_data(to: Mirror) -> None:
    """Name the data set as an input of the sweep's run, once."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    run, data = to.runs["sweep"], data_input(json.loads((to.sweep_dir / "sweep.json").read_text()))
    if data is None or run.tags.get("sweep.data") == data.digest:
        return
    made = Dataset(data.name, data.digest, "local", data.source, data.data_schema, data.profile)
    to.client.log_inputs(run.run_id, [DatasetInput(made, [InputTag("mlflow.data.context", "training")])])
    to.log("sweep", [], {}, {"sweep.data": data.digest})


def _upload(to: Mirror, name: str) -> None:
    """Attach a file or folder of the sweep to its run, unless the run has just these contents."""
    path = to.sweep_dir / name
    files = sorted(file for file in (path, *path.rglob("*")) if file.is_file())
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(to.sweep_dir)}\n{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    run = to.runs["sweep"]
    if not files or run.tags.get(f"sweep.{name}") == digest.hexdigest():
        return
    if path.is_dir():
        to.client.log_artifacts(run.run_id, str(path), name)
    else:
        to.client.log_artifact(run.run_id, str(path))
    to.log("sweep", [], {}, {f"sweep.{name}": digest.hexdigest()})


def is_running(sweep_dir: Path) -> bool:
    """Whether the sweep's command is running."""
    return (sweep_dir / ".running").exists()


def _chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
