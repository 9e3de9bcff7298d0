"""What MLflow costs: `python -m benchmarks.tracking_costs results/quick --tracking-uri http://127.0.0.1:5000`.

Multiplies the trials of a finished sweep, each in a study of the size it had, sends them in pieces to one experiment
and prints milliseconds, and processor time of this process, per trial of each piece. The copies are made in a temporary
folder; the experiments `tracking costs ...` stay on the server, for somebody to delete.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from sweeps.schema.records import RUNG_COLUMNS, Trial
from sweeps.storage.record_log import RecordWriter, read_trials
from sweeps.tracking import mlflow_mirror, sync


def copies(trials: Sequence[Trial], count: int) -> list[Trial]:
    """`count` trials; each time round, all get other ids and their studies other names."""
    rounds = ((number, trial) for number in itertools.count() for trial in trials)
    return [
        replace(trial, trial_id=f"{trial.trial_id}-{number}", study=f"{trial.study} {number}")
        for number, trial in itertools.islice(rounds, count)
    ]


def measure(trials: Sequence[Trial], uri: str, pieces: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        sweep = Path(folder)
        (sweep / "sweep.json").write_text(json.dumps({"name": f"tracking costs, {time.time():.0f}"}))
        size = -(-len(trials) // pieces)
        for start in range(0, len(trials), size):
            some = trials[start : start + size]
            writer = RecordWriter(sweep, f"copies-{start}")
            for trial in some:
                writer.append(trial)
            began, processor = time.perf_counter(), time.process_time()
            sync.sync(sweep, uri)
            seconds, processor = time.perf_counter() - began, time.process_time() - processor
            each = 1000 / len(some)
            print(f"{start + len(some):8d} {each * seconds:9.1f} {each * processor:11.1f}", flush=True)
        began = time.perf_counter()
        sync.sync(sweep, uri)
        print(f"nothing new: {time.perf_counter() - began:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sweep", type=Path, metavar="SWEEP_DIR")
    parser.add_argument("--tracking-uri", required=True, metavar="URI")
    parser.add_argument("--trials", type=int, default=500, metavar="N")
    parser.add_argument("--pieces", type=int, default=4, metavar="N")
    options = parser.parse_args()
    mlflow_mirror.connect(options.tracking_uri)  # MLflow takes seconds to load
    trials = copies(read_trials(options.sweep), options.trials)
    studies = len({trial.study for trial in trials})
    values = sum(len(RUNG_COLUMNS) + len(rung.metrics) for trial in trials for rung in trial.rungs) / len(trials)
    print(f"{studies} studies; about {values:.0f} values in a trial")
    print("  trials  ms/trial  of it here")
    measure(trials, options.tracking_uri, options.pieces)


if __name__ == "__main__":
    main()
