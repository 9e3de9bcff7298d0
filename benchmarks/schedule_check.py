"""The simulated schedule against real ones: `python -m benchmarks.schedule_check --repeats 3`.

Runs a sweep on Ray with two CPUs again and again, and prints how long each run took (from the first cell to the end of
the last, without start-up) beside what the simulation makes of the seconds of the run before.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from benchmarks.schedule import DRIVER, Cluster, ideal, simulate
from benchmarks.schedule_costs import Measured
from benchmarks.worker_scaling import asked, in_process
from sweeps.storage.record_log import read_trials

WORKERS = 2


def main() -> None:
    sweep, repeats = asked(__doc__ or "", "check")
    predicted = None
    print("| ideal, s | foretold, s | measured, s | off by |\n|---|---|---|---|")
    for _ in range(repeats + 1):
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
