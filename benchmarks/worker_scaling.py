"""How well a second worker is used: `python -m benchmarks.worker_scaling --repeats 3`.

The same sweep on Ray with one CPU and with two, in turn, each time in a process of its own and from nothing. Start-up
is what the same takes where nothing is to be done: starting Ray, and a fit whose workers import everything and find
their tasks done. Efficiency is t1 / (2 t2), of the work (without start-up) and of the whole. Raises RuntimeError if two
runs do not give the same records.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sweeps.config.overrides import apply
from sweeps.config.presets import read_preset
from sweeps.config.spec import Sweep
from sweeps.planning.missing import missing
from sweeps.planning.task_list import reference_tasks
from sweeps.planning.tasks import Outcome, Task
from sweeps.storage.record_log import read_trials
from sweeps.trials.scenario_cache import RunEnvironment

WORKERS = (1, 2)
MORE = 40  # tasks with nothing to do, to see what a task costs


class Times(NamedTuple):
    """Seconds. ray: until Ray is there. idle: of a fit with nothing to do. fit: of the one that does the sweep. task:
    of a further task with nothing to do."""

    ray: float
    idle: float
    fit: float
    task: float

    @property
    def work(self) -> float:
        return self.fit - self.idle

    @property
    def whole(self) -> float:
        return self.ray + self.fit


class Done:
    """A queue of tasks of which nothing is left to do."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.left, self.running = list(tasks), 0

    @property
    def finished(self) -> bool:
        return not self.left and not self.running

    def next(self, slots: int) -> Task | None:
        if not self.left:
            return None
        self.running += 1
        return self.left.pop()

    def done(self, task: Task, outcome: Outcome) -> None:
        if outcome.error:
            raise RuntimeError(outcome.error)
        self.running -= 1

    def lost(self, task: Task, error: str) -> None:
        raise RuntimeError(error)


def run_sweep(sweep: Sweep, out: Path, workers: int) -> Times:
    """Run the whole sweep on a Ray of this machine with so many CPUs, one per task."""
    os.environ["RAY_OVERRIDE_RESOURCES"] = json.dumps({"CPU": workers})
    from sweeps.execution.ray_executor import RayExecutor
    from sweeps.planning.done_work import RecordedWork
    from sweeps.planning.schedule import Schedule

    folder = out / sweep.name
    folder.mkdir(parents=True)
    (folder / "sweep.json").write_text(json.dumps({"spec": sweep.to_dict()}))
    schedule = Schedule(sweep, missing(sweep, folder), RecordedWork(sweep, folder))
    done = reference_tasks(sweep)[:1]
    clock = [time.perf_counter()]
    executor = RayExecutor("local", cpus=1, gpus=0)
    clock.append(time.perf_counter())
    for queue in (schedule, Done(done * workers), Done(done * (workers + MORE))):
        executor.run(folder, RunEnvironment(out), queue)
        clock.append(time.perf_counter())
    executor.close()
    if schedule.failed:
        raise RuntimeError(f"{schedule.failed[0].task.name}: {schedule.failed[0].error}")
    ray, fit, idle, longer = (later - before for before, later in itertools.pairwise(clock))
    return Times(ray, idle, fit, (longer - idle) / MORE)


def in_process(sweep: Sweep, out: Path, workers: int) -> Times:
    """`run_sweep` in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(run_sweep, (sweep, out, workers))


def found(sweep_dir: Path) -> dict[str, list[float | None]]:
    """What must not depend on how many workers there were."""
    return {trial.trial_id: [rung.score for rung in trial.rungs] for trial in read_trials(sweep_dir)}


def measure(sweep: Sweep, repeats: int) -> dict[int, list[Times]]:
    """By number of workers; one after the other in every round, so that a busy time of the machine meets both."""
    times: dict[int, list[Times]] = {workers: [] for workers in WORKERS}
    first: dict[str, list[float | None]] = {}
    for number in range(repeats):
        for workers in WORKERS if number % 2 == 0 else WORKERS[::-1]:
            with tempfile.TemporaryDirectory() as out:
                times[workers].append(in_process(sweep, Path(out), workers))
                records = found(Path(out) / sweep.name)
            print(f"{workers} CPU: " + ", ".join(f"{k} {v:.2f} s" for k, v in times[workers][-1]._asdict().items()))
            first = first or records
            if records != first:
                raise RuntimeError("the records depend on the number of workers")
    return times


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Median, least and largest."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def asked(description: str, name: str) -> tuple[Sweep, int]:
    """The sweep that the command line describes, under a name of its own, and how often it is to be run."""
    parser = argparse.ArgumentParser(description=description.split("\n")[0])
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--set", action="append", default=[], dest="assignments", metavar="KEY=VALUE")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    options = parser.parse_args()
    sweep = Sweep.from_dict(apply(read_preset(options.preset), options.assignments))
    return dataclasses.replace(sweep, name=name), options.repeats


def main() -> None:
    times = measure(*asked(__doc__ or "", "scaling"))
    print("\n| workers | start of Ray, s | of workers, s | work, s | whole, s |\n|---|---|---|---|---|")
    for workers, runs in times.items():
        columns = ([run.ray for run in runs], [run.idle for run in runs], [run.work for run in runs])
        print(f"| {workers} | " + " | ".join(map(spread, (*columns, [run.whole for run in runs]))) + " |")
    for name in ("work", "whole"):
        shares = [getattr(a, name) / (2 * getattr(b, name)) for a, b in zip(times[1], times[2], strict=True)]
        print(f"efficiency of two workers, {name}: {spread(shares, 2)}")


if __name__ == "__main__":
    main()
