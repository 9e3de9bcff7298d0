"""Mirrors a sweep's records to MLflow, beside the sweep or afterwards, without ever being in its way.

The records are the truth and nothing here is needed to have them. `sync` sends what a tracking store is missing; it can
be repeated, interrupted and repeated again (how: `mlflow_mirror.py`). During a sweep it runs as a separate process,
`python -P -m sweeps.tracking.sync SWEEP_DIR --follow`, with the URI in MLFLOW_TRACKING_URI.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sweeps.storage.errors import StorageError
from sweeps.tracking.database import DatabaseError, prepared
from sweeps.tracking.mlflow_mirror import DatabaseTables, Mirror, connect, is_running, known_runs, send
from sweeps.tracking.record_cache import RecordCache
from sweeps.tracking.uri import artifact_root, default_uri, no_stray_folder, page, reachable, without_secrets
from unlearn_core.checks import InputError
from unlearn_core.host.output import run as run_command
from unlearn_core.host.private import private_files

__all__ = ["SyncReport", "TrackingError", "default_uri", "follow", "main", "reachable", "sync"]


class TrackingError(RuntimeError):
    """The mirror could not be written, for the reason given in one line. The records are not affected."""


class SyncReport(NamedTuple):
    """What one sync did."""

    new: int  # trials sent now
    total: int  # trials of the sweep, all of them mirrored
    experiment_id: str
    url: str  # page of the experiment; the tracking URI where no server shows one


def sync(sweep_dir: Path, tracking_uri: str) -> SyncReport:
    """Send what the tracking store lacks of this sweep.

    Args:
        sweep_dir: Folder of the sweep, with `sweep.json` and `records`.
        tracking_uri: Any tracking URI of MLflow except a plain folder.

    Returns:
        What was sent, and where it is shown.

    Raises:
        TrackingError: whatever goes wrong on the way.
        InputError: there is no sweep.
    """
    with _opened(sweep_dir, tracking_uri) as to:
        new, total = send(to)
    return SyncReport(new, total, to.experiment_id, page(tracking_uri, to.experiment_id))


def follow(sweep_dir: Path, tracking_uri: str, *, every: float = 5.0) -> SyncReport:
    """Sync every few seconds (less often if that takes long) while the sweep runs, and once more after it."""
    parent = os.getppid()

    def alive() -> bool:  # a driver that was killed leaves its `.running` behind, but not its process
        return is_running(sweep_dir) and os.getppid() == parent

    while alive():
        with contextlib.suppress(TrackingError, InputError), _opened(sweep_dir, tracking_uri) as to:
            while alive():
                began = time.monotonic()
                send(to)
                _wait(alive, max(every, min(60.0, 10 * (time.monotonic() - began))))
        _wait(alive, every)  # after a failure; the next round sends what this one could not
    return sync(sweep_dir, tracking_uri)


@contextlib.contextmanager
def _opened(sweep_dir: Path, tracking_uri: str) -> Iterator[Mirror]:
    """The sweep's mirror with all its known runs, locked against a second writer; errors as in `sync`."""
    if not (sweep_dir / "sweep.json").is_file():
        raise InputError(f"{sweep_dir} holds no sweep: there is no sweep.json in it")
    try:
        if problem := reachable(tracking_uri):
            raise TrackingError(problem)
        with _locked(sweep_dir) as sweep_id:
            name = json.loads((sweep_dir / "sweep.json").read_text())["name"]
            with prepared(tracking_uri, DatabaseTables()), no_stray_folder(tracking_uri):
                client = connect(tracking_uri)
                experiment_id = _experiment(client, name, tracking_uri)
            runs = known_runs(client, experiment_id, sweep_id)
            yield Mirror(client, sweep_dir, name, sweep_id, experiment_id, runs, RecordCache(sweep_dir))
    except TrackingError:
        raise
    except (DatabaseError, StorageError) as error:
        raise TrackingError(str(error)) from error
    except Exception as error:  # of any kind: a mirror that fails must not look like a sweep that fails
        reason = without_secrets(str(error)).strip().partition("\n")[0]
        raise TrackingError(f"{type(error).__name__}: {reason}") from error


@contextlib.contextmanager
def _locked(sweep_dir: Path) -> Iterator[str]:
    """Hold the sweep's tracking lock. The file holds the id that tells the sweep from others of the same name."""
    with open(sweep_dir / ".tracking", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrackingError(f"another process is mirroring {sweep_dir}") from None
        file.seek(0)
        sweep_id = file.read()
        if len(sweep_id) != 32:  # new, or its first writer was killed before it sent anything
            sweep_id = uuid.uuid4().hex
            file.truncate(0)
            file.write(sweep_id)
            file.flush()
            os.fsync(file.fileno())
        yield sweep_id


def _experiment(client: Any, name: str, tracking_uri: str) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return client.create_experiment(name, artifact_location=artifact_root(tracking_uri))
        except Exception as error:
            if getattr(error, "error_code", None) != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)  # another sweep of this name made it a moment ago
    if found.lifecycle_stage == "deleted":
        raise TrackingError(f"the experiment {name!r} was deleted there; restore it or erase it for good")
    return found.experiment_id


def _wait(alive: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while alive() and time.monotonic() < end:
        time.sleep(0.2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -P -m sweeps.tracking.sync", description=__doc__.partition("\n")[0])
    parser.add_argument("sweep_dir", type=Path, metavar="SWEEP_DIR", help="folder with sweep.json and records")
    parser.add_argument(
        "--tracking-uri", default=os.environ.get("MLFLOW_TRACKING_URI"), metavar="URI",
        help="sqlite:////absolute/path or http://... (default: MLFLOW_TRACKING_URI)",
    )  # fmt: skip
    parser.add_argument("--follow", action="store_true", help="repeat until the sweep is over")
    args = parser.parse_args(argv)
    if not args.tracking_uri:
        parser.error("--tracking-uri is missing, and MLFLOW_TRACKING_URI is not set")
    os.nice(10)  # the sweep's own processes come first
    try:
        send = follow if args.follow else sync
        with private_files():
            report = send(args.sweep_dir, args.tracking_uri)
    except (TrackingError, InputError) as error:
        print(f"tracking: {error}", file=sys.stderr)
        return 1
    print(f"tracking: {report.new} new of {report.total} trials, shown at {report.url}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
