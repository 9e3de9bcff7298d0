"""What a user of Ray Tune sees of a sweep: trials with names, configurations and reports; callbacks and stoppers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sweeps.execution.ray_executor import RayExecutor
from sweeps.planning.done_work import RecordedWork
from sweeps.planning.missing import missing
from sweeps.planning.schedule import Schedule
from sweeps.planning.tasks import RunStudy
from sweeps.storage.record_log import read_trials
from sweeps.trials.scenario_cache import RunEnvironment
from tests.sweeps.conftest import Done
from tests.sweeps.test_executors import prepare
from tests.sweeps.tiny import lines, science
from unlearn_core.checks import InputError

pytestmark = [pytest.mark.ray, pytest.mark.timeout(400)]
FINAL = {"finished": True, "error": "", "too_large": ""}


class Run(NamedTuple):
    """One run of the sweep.

    Attributes:
        grid: what Tune returns.
        seen: the reports that a callback saw, by name of the Tune trial.
        trials: the records afterwards, by study.
        lines: recorded lines afterwards.
        schedule: the schedule at its end.
    """

    grid: Any
    seen: dict[str, list[dict[str, Any]]]
    trials: dict[str, dict[str, Any]]
    lines: list[str]
    schedule: Schedule


class Runs(NamedTuple):
    """The same sweep three times: all studies ended at the first report, then one study, then none."""

    all_ended: Run
    one_ended: Run
    finished: Run


@pytest.fixture(scope="module")
def runs(done: Done, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    from ray.tune import Callback, Stopper
    from ray.tune.logger import JsonLoggerCallback

    class Sees(Callback):
        def __init__(self) -> None:
            self.seen: dict[str, list[dict[str, Any]]] = {}

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
            self.seen.setdefault(str(trial), []).append(dict(result))

    class Ends(Stopper):
        """Ends the studies of these methods at their first proposal, or all of them."""

        def __init__(self) -> None:
            self.methods: tuple[str, ...] = ()
            self.everything = self.asked = False

        def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
            self.asked = True
            return result["method"] in self.methods

        def stop_all(self) -> bool:
            return self.everything and self.asked

    sees, ends = Sees(), Ends()
    executor = RayExecutor("local", cpus=1, gpus=0, workers=1, callbacks=[sees, JsonLoggerCallback()], stop=ends)
    folder = prepare(done.sweep, tmp_path_factory.mktemp("users"))

    def run() -> Run:
        sees.seen = {}
        (folder / ".stop").unlink(missing_ok=True)
        work = RecordedWork(done.sweep, folder)
        schedule = Schedule(done.sweep, missing(done.sweep, folder), work, whole_studies=True)
        executor.run(folder, RunEnvironment(folder.parent), schedule)
        return Run(executor.results, sees.seen, science(read_trials(folder)), lines(folder), schedule)

    try:
        ends.everything = True
        all_ended = run()
        ends.everything, ends.methods = False, ("gd",)
        one_ended = run()
        ends.methods = ()
        yield Runs(all_ended, one_ended, run())
    finally:
        executor.close()
