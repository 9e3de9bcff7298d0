"""The simulated schedule against real ones: `python -m benchmarks.schedule_check --repeats 3`.

Runs a sweep on Ray with two CPUs again and again, and prints how long each run took (from the first cell to the end of
the last, without start-up) beside what the simulation makes of the seconds of the run before.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
from pathlib import Path

from benchmarks.schedule import DRIVER, Cluster, ideal, simulate
from benchmarks.schedule_costs import Measured
from benchmarks.worker_scaling import in_process
from sweeps.overrides import apply
from sweeps.spec import Sweep, read_preset
from sweeps.store import read_trials

WORKERS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--set", action="append", default=[], dest="assignments", metavar="KEY=VALUE")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    options = parser.parse_args()
    sweep = dataclasses.replace(Sweep.from_dict(apply(read_preset(options.preset), options.assignments)), name="check")
    predicted = None
    print("| ideal, s | foretold, s | measured, s | off by |\n|---|---|---|---|")
    for _ in range(options.repeats + 1):
        with tempfile.TemporaryDirectory() as out:
            times = in_process(sweep, Path(out), WORKERS)
            measured = Measured(list(read_trials(Path(out) / sweep.name)))
        if predicted is not None:
            best, foretold = predicted
            print(f"| {best:.0f} | {foretold:.0f} | {times.work:.0f} | {foretold / times.work - 1:+.0%} |", flush=True)
        cluster = Cluster(WORKERS, ahead=WORKERS, driver=DRIVER)
        predicted = ideal(sweep, measured).makespan(WORKERS), simulate(cluster, sweep, measured)


if __name__ == "__main__":
    main()
