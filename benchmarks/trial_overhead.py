"""What a trial costs besides training, unlearning and evaluation: `python benchmarks/trial_overhead.py`.

Walks studies of the `quick` sweep in this process and prints the milliseconds per trial that went into proposals,
copies, bookkeeping and records written to disk, with the share of the whole.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from sweeps.config.presets import read_preset
from sweeps.config.spec import Sweep
from sweeps.execution.run_task import Worker, run_task
from sweeps.planning.task_list import reference_tasks, study_tasks
from sweeps.schema.records import Trial
from sweeps.storage.record_log import read_folder
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache


def useful_seconds(trial: Trial) -> float:
    """Seconds of a trial spent on updates and on measuring the model."""
    return trial.update_seconds + (trial.evaluation_seconds or 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--attack", default="gaussian", choices=["gaussian", "badnets"])
    options = parser.parse_args()
    sweep = Sweep.from_dict(read_preset("quick"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        work, sweep_dir = ScenarioCache(sweep, RunEnvironment(out)), out / sweep.name
        for task in reference_tasks(sweep):
            if task.attack == options.attack:
                run_task(task, Worker(work, sweep_dir))
        print(f"{'study':<28} trials  overhead per trial  share of the whole")
        whole, useful, count = 0.0, 0.0, 0
        for task in (task for task in study_tasks(sweep) if task.attack == options.attack):
            start = time.perf_counter()
            trials = run_task(task, Worker(work, sweep_dir))
            spent = time.perf_counter() - start
            needed = sum(map(useful_seconds, read_folder(sweep_dir, task.name)))
            print(line(task.name, trials, spent, needed))
            whole, useful, count = whole + spent, useful + needed, count + trials
        print(line("all", count, whole, useful))


def line(name: str, trials: int, whole: float, useful: float) -> str:
    overhead = whole - useful
    return f"{name:<28} {trials:>6}  {1000 * overhead / trials:>15.1f} ms  {overhead / whole:>17.0%}"


if __name__ == "__main__":
    main()
