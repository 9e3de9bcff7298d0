"""One fit of Ray Tune: each Tune trial is a study, part of a split one, or another task, under its readable name."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from ray import tune

from sweeps.config.spec import Sweep
from sweeps.execution.executors import Queue
from sweeps.execution.study_report import StudyReport
from sweeps.execution.tune_config import task_of, tune_config
from sweeps.execution.tune_queue import TuneQueue
from sweeps.execution.tune_stop import StudyStopper
from sweeps.execution.worker import STOP, work_task
from sweeps.planning.tasks import to_wire
from sweeps.storage.base import Folder
from sweeps.storage.folders import at
from sweeps.storage.manifest import read_manifest
from sweeps.trials.scenario_cache import RunEnvironment

LOST_WORKERS = 10  # how often a task starts again after a lost process or machine, before its progress is looked at


@dataclass(frozen=True)
class Fit:
    """What a fit needs.

    Attributes:
        sweep_dir: where the sweep keeps its records.
        place: what workers have.
        queue: the tasks.
        share: CPUs and GPUs of a task.
        slots: how many tasks may be under way, see `TuneQueue`.
        callbacks: callbacks of Tune.
        stop: a stopper of Tune, see `StudyStopper`.
    """

    sweep_dir: Folder
    place: RunEnvironment
    queue: Queue
    share: Mapping[str, float]
    slots: Callable[[], tuple[int, int]]
    callbacks: Sequence[tune.Callback]
    stop: tune.Stopper

    def run(self, most: int) -> tune.ResultGrid:
        """Runs at most `most` tasks of the queue."""
        folder = at(self.sweep_dir).local_copy / ".tune"
        shutil.rmtree(folder, ignore_errors=True)  # left by a driver that was killed
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(most)  # the queue knows how many
        tuner = tune.Tuner(
            tune.with_resources(trainable(self.sweep_dir, self.place), partial(resources, dict(self.share))),
            tune_config=tune.TuneConfig(
                metric="best_score",
                mode="max",
                search_alg=TuneQueue(self.queue, self.slots, self._config(), most=most),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=name_of,
                trial_dirname_creator=name_of,
            ),
            run_config=tune.RunConfig(
                name=self.sweep_dir.name,
                storage_path=str(folder),
                verbose=0,
                callbacks=list(self.callbacks),
                stop=StudyStopper(self.stop, self._end),
                failure_config=tune.FailureConfig(max_failures=LOST_WORKERS),
            ),
        )
        try:
            return tuner.fit()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _config(self) -> Callable[[Any], dict[str, Any]]:
        return partial(tune_config, Sweep.from_dict(read_manifest(self.sweep_dir)["spec"]))

    def _end(self) -> None:
        """Begin nothing more, here and in the workers."""
        self.queue.stopped = True
        at(self.sweep_dir / STOP).write(b"")


def trainable(sweep_dir: Folder, place: RunEnvironment) -> Callable[[dict[str, Any]], None]:
    """What Tune calls in a worker for each task."""

    def sweep_task(config: dict[str, Any]) -> None:
        reported: dict[str, Any] = {}

        def report(found: StudyReport) -> None:
            """Returns once Tune wants the study to go on; where it does not, this thread ends here."""
            reported.update(asdict(found))
            tune.report(reported | {"finished": False})

        outcome = work_task(sweep_dir, place, task_of(config), report)
        # texts: Tune takes an empty mapping out, and tells of every task whose report has no values
        too_large = json.dumps(to_wire(outcome.too_large)) if outcome.too_large else ""
        tune.report(reported | {"finished": True, "error": outcome.error or "", "too_large": too_large})

    return sweep_task


def resources(usual: dict[str, float], config: dict[str, Any]) -> dict[str, float]:
    """What a task gets of a machine."""
    return usual | ({"gpu": 1.0} if config["whole_gpu"] else {})


def name_of(trial: Any) -> str:
    """The name of a Tune trial."""
    return str(trial.config["name"])
