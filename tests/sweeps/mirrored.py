"""A sweep's folder with made-up records, and what a real SQLite store shows of it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sweeps.schema.lines import from_content, to_line
from sweeps.schema.records import SCHEMA_VERSION, Trial
from sweeps.tracking import sync

WRITES = ("create_", "log_", "set_terminated", "delete_")
BUDGETS = (0.02, 0.1)


class FaultError(Exception):
    pass


class Flaky:
    """A client whose write number `at` (from 0) fails, before or after it took effect."""

    def __init__(self, client: Any, at: int, *, after: bool) -> None:
        self.client, self.left, self.after = client, at, after

    def __getattr__(self, name: str) -> Any:
        call = getattr(self.client, name)
        return (lambda *args, **kwargs: self.write(call, args, kwargs)) if name.startswith(WRITES) else call

    def write(self, call: Any, args: Any, kwargs: Any) -> Any:
        self.left -= 1
        if self.left == -1 and not self.after:
            raise FaultError("before")
        result = call(*args, **kwargs)
        if self.left == -1:
            raise FaultError("after")
        return result


def trial(number: int, study: str = "patch x scrub", *, stage: str = "tuning", **changes: Any) -> Trial:
    return from_content(content(number, study, stage=stage, **changes))


def content(number: int, study: str = "patch x scrub", *, stage: str = "tuning", **changes: Any) -> dict[str, Any]:
    """What the line of such a trial holds."""
    rungs = [
        {
            "budget": budget,
            "seconds": 1.5,
            "status": "ok",
            "score": number / 10 + budget,
            "removal": 0.5 + number / 100,
            "efficacy": 1 - abs(0.5 - number / 100),
        }
        | {"utility_gap": None, "steps": 7, "metrics": {"accuracy": 0.9, "auc": None}}
        for budget in BUDGETS
    ]
    base = {
        "schema": SCHEMA_VERSION,
        "trial_id": f"t{number:03d}",
        "study": study,
        "stage": stage,
        "scenario_id": "s1",
        "seed": 3,
    }
    base |= {
        "attack": "patch",
        "method": "scrub",
        "settings": json.dumps({"name": "scrub", "lr": 0.1, "phases": [1, 2]}),
    }
    base |= {"attack_settings": "{}", "proposal": number, "chosen_for": "[0.02]" if stage == "confirmation" else None}
    base |= {"finished_at": 1000.0 + number, "code_version": "abc", "corrupted_value": 1.0, "attack_took": True}
    return base | {"rungs": rungs, "error": None} | changes


class Sweep:
    """A sweep's folder and what the store shows of it."""

    def __init__(self, folder: Path, name: str, uri: str) -> None:
        self.folder, self.name, self.uri = folder / name.replace("/", "-"), name, uri
        self.folder.mkdir()
        (self.folder / "sweep.json").write_text(json.dumps({"name": name, "command": "x", "spec": {}}))

    def write(self, trials: Sequence[Trial], part: str = "a", start: int | None = None) -> None:
        """As a writer of its own, which by default knows all that is there when it begins."""
        for one in trials:
            cell = self.folder / "records" / str(abs(hash(one.study)))
            cell.mkdir(parents=True, exist_ok=True)
            known = sum(len(path.read_text().splitlines()) for path in cell.iterdir()) if start is None else start
            begun = list(cell.glob(f"*-{part}.jsonl"))
            with open(begun[0] if begun else cell / f"{known:08d}-{part}.jsonl", "ab") as file:
                file.write(to_line(one))

    def sync(self, **options: Any) -> sync.SyncReport:
        return sync.sync(self.folder, self.uri, **options)

    def shown(self) -> dict[str, dict[str, Any]]:
        """The sweep's active runs by key; fails on a key with two runs."""
        query = "SELECT r.run_uuid, r.name, r.status, r.start_time, r.end_time FROM runs r JOIN experiments e USING"
        query += " (experiment_id) WHERE e.name = ? AND r.lifecycle_stage = 'active'"
        with sqlite3.connect(self.uri.removeprefix("sqlite:///")) as base:
            runs = {run[0]: {"run": run[1:]} for run in base.execute(query, (self.name,))}
            for uuid, run in runs.items():
                run["tags"] = dict(base.execute("SELECT key, value FROM tags WHERE run_uuid = ?", (uuid,)))
                run["params"] = dict(base.execute("SELECT key, value FROM params WHERE run_uuid = ?", (uuid,)))
                rows = base.execute("SELECT key, step, timestamp, value FROM metrics WHERE run_uuid = ?", (uuid,))
                run["metrics"] = sorted(rows)
        for run in runs.values():
            run["parent"] = runs.get(run["tags"].pop("mlflow.parentRunId", ""), {"tags": {}})["tags"].get("sweep.key")
        keys = [run["tags"]["sweep.key"] for run in runs.values()]
        assert len(set(keys)) == len(keys)
        return {run["tags"]["sweep.key"]: run for run in runs.values()}

    def comparable(self) -> dict[str, Any]:
        """`shown` without what differs between two sweeps: their id, and the digest of sweep.json with its name."""
        for run in (shown := self.shown()).values():
            for tag in ("sweep.id", "sweep.sweep.json"):
                run["tags"].pop(tag, None)
            if run["parent"] is None:
                run["run"], _ = run["run"][1:], run["tags"].pop("mlflow.runName")
        return shown


SMALL = [trial(0), trial(1), trial(2, stage="confirmation"), trial(3, "patch x none", method="none")]


def fill(sweep: Sweep) -> None:
    """Two trials with runs of their own, one that is a step, and a report."""
    sweep.write(SMALL[:3])
    (sweep.folder / "report").mkdir()
    (sweep.folder / "report" / "index.html").write_text("<p>report")


@pytest.fixture(name="uri")
def uri_of_one_store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for all tests of a session: making one takes seconds."""
    return sync.default_uri(tmp_path_factory.getbasetemp() / "mlflow")


@pytest.fixture(name="sweep")
def empty_sweep(tmp_path: Path, uri: str, request: pytest.FixtureRequest) -> Sweep:
    return Sweep(tmp_path, request.node.name, uri)
