"""Writes `sweep.json`: what the sweep in a folder is, for workers, for the analysis, and for whoever resumes it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from sweeps.config.spec import Sweep
from sweeps.storage.folders import at
from sweeps.storage.local_copy import LocalCopy
from sweeps.storage.manifest import NAME, read_manifest
from sweeps.trials.machine import code_version, describe_driver, versions
from sweeps.trials.scenario_cache import RunEnvironment
from unlearn_core.checks import InputError
from unlearn_core.metrics import columns
from unlearn_core.registry import UNLEARNERS


class DataFacts(NamedTuple):
    """What `sweep.json` says of the data. card: see DataCard; None where the data set has none."""

    digest: str
    card: dict[str, Any] | None


def check_manifest(sweep: Sweep, replica: LocalCopy) -> None:
    """A sweep that already has records in this folder must be this one; raises InputError."""
    if not (replica.dir / NAME).exists() or not any(replica.dir.glob("records/*/*.jsonl")):
        return
    difference = _difference(sweep, replica.dir)
    if difference:
        raise InputError(
            f"{replica.home} holds a sweep with other settings ({difference}); give this one another --name or --out"
        )


def write_manifest(
    sweep: Sweep, replica: LocalCopy, place: RunEnvironment, command: str, data: DataFacts | None
) -> None:
    """Write it, or bring the settings in it up to date where they change no result. data: None if it cannot be read."""
    same = (replica.dir / NAME).exists() and _difference(sweep, replica.dir) is None
    before = read_manifest(replica.dir) if same else _begun(sweep, place, command)
    now = before | {"spec": sweep.to_dict()}  # plug-ins may have moved, resources may be others
    now |= {"data": data.digest, "card": data.card} if data else {}
    if not same or now != before:
        at(replica.dir / NAME).write(json.dumps(now, indent=1).encode())
        replica.push(NAME)


def _begun(sweep: Sweep, place: RunEnvironment, command: str) -> dict[str, Any]:
    return {
        "name": sweep.name,
        "command": command,
        "spec": sweep.to_dict(),
        "identity": sweep.identity(),
        "versions": versions(),
        "code_version": code_version(),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": describe_driver(place.device, place.threads),
        "metrics": columns(),
        "methods": {name: {"summary": UNLEARNERS.summary(name)} for name in UNLEARNERS.names()},
    }


def _difference(sweep: Sweep, sweep_dir: Path) -> str | None:
    """The first few settings in which the sweep in the folder differs from this one; None if it is the same."""
    manifest, here = read_manifest(sweep_dir), sweep.to_dict()
    if manifest.get("identity") == sweep.identity():
        return None
    keys = [key for key in here if manifest["spec"].get(key) != here[key] and key not in ("name", "resources")]
    return "differs in " + ", ".join(keys[:4]) if keys else "made by other code or weights"
