"""What reporting every proposal to Ray Tune costs: `python -m benchmarks.tune_reports`.

Runs studies that do nothing but report, on one worker, in the fits that sweeps use, and prints per number of reports
the milliseconds that each takes beyond a study that reports its end only: by the clock, while the worker waits for the
answer, and of the driver's processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from benchmarks.pipeline_scale import settings
from sweeps.config.spec import Sweep
from sweeps.planning.tasks import Outcome, RunStudy, Task
from sweeps.trials.scenario_cache import RunEnvironment

PER_STUDY = 100  # reports
LAST = {"finished": True, "error": "", "too_large": ""}
REPORT = {
    "study": "badnets--nudge00", "proposal": 1, "method": "nudge00", "settings": {"lr": 0.1, "epochs": 3, "beta": 0.5},
    "score": 0.5, "best_score": 0.5, "trials": 1, "finished": False,
    "efficacy": {str(budget): 0.5 for budget in (0.01, 0.02, 0.05, 0.1, 0.2)},
    "utility_gap": {str(budget): 0.0 for budget in (0.01, 0.02, 0.05, 0.1, 0.2)},
}  # fmt: skip


class Studies:
    """A queue of so many studies."""

    stopped = False

    def __init__(self, count: int) -> None:
        self.left, self.running = [RunStudy(f"patch{n:05d}", 1.0, "nudge00") for n in range(count)], 0

    @property
    def finished(self) -> bool:
        return not self.left and not self.running

    def next(self, slots: int) -> Task | None:
        if not self.left:
            return None
        self.running += 1
        return self.left.pop()

    def done(self, task: Task, outcome: Outcome) -> None:
        self.running -= 1

    def lost(self, task: Task, error: str) -> None:
        raise RuntimeError(error)

    def leave(self, task: Task) -> None:
        raise RuntimeError(f"{task.name} was ended")


class Cost(NamedTuple):
    """Seconds by the clock, and of the driver's processor time."""

    wall: float
    cpu: float


def reporting(reports: int) -> Callable[[Any, Any], Callable[[dict[str, Any]], None]]:
    """In place of `sweeps.execution.tune_fit.trainable`: studies that report so often and do nothing else."""

    def trainable(sweep_dir: Any, place: Any) -> Callable[[dict[str, Any]], None]:
        def sweep_task(config: dict[str, Any]) -> None:
            from ray import tune

            for number in range(reports):
                tune.report(REPORT | {"proposal": number})
            tune.report(REPORT | LAST if reports else LAST)

        return sweep_task

    return trainable


def cost(executor: Any, folder: Path, studies: int, reports: int) -> Cost:
    """Of so many studies with so many reports each."""
    from sweeps.execution import tune_fit

    with mock.patch.object(tune_fit, "trainable", reporting(reports)):
        wall, cpu = time.perf_counter(), time.process_time()
        executor.run(folder, RunEnvironment(folder.parent), Studies(studies))
        return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def measured(sizes: Sequence[int]) -> None:
    from sweeps.execution.ray_executor import RayExecutor

    with tempfile.TemporaryDirectory() as out:
        folder = Path(out) / "reports"
        folder.mkdir()
        (folder / "sweep.json").write_text(json.dumps({"spec": Sweep.from_dict(settings(1)).to_dict()}))
        executor = RayExecutor("local", cpus=1, gpus=0, workers=1)
        cost(executor, folder, 1, 1)  # imports
        print("| reports | ms each | of the driver's CPU | load |\n|---|---|---|---|")
        for size in sizes:
            studies = max(1, size // PER_STUDY)
            base, full = (cost(executor, folder, studies, reports) for reports in (0, PER_STUDY))
            wall, cpu = (1000 * (b - a) / (studies * PER_STUDY) for a, b in zip(base, full, strict=True))
            print(f"| {studies * PER_STUDY:,} | {wall:.2f} | {cpu:.2f} | {os.getloadavg()[0]:.0f} |", flush=True)
        executor.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[1_000, 10_000, 100_000], help="reports, times 100")
    measured(parser.parse_args().sizes)


if __name__ == "__main__":
    main()
