"""A sweep that is stopped after any record, and then goes on."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from sweeps.config.spec import Sweep
from sweeps.execution.run_task import Worker, run_task
from sweeps.storage.record_log import RecordWriter, Trial, read_trials
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.sweeps.tiny import lines, run_all, run_fresh, science, tasks


class StoppedError(BaseException):
    pass


def run_some(work: ScenarioCache, sweep_dir: Path, records: int) -> None:
    """Walk the tasks until there are so many new records."""
    left = [records]

    def append(self: RecordWriter, trial: Trial) -> None:
        write(self, trial)
        left[0] -= 1
        if left[0] <= 0:
            raise StoppedError

    write = RecordWriter.append
    with pytest.MonkeyPatch.context() as patch, contextlib.suppress(StoppedError):
        patch.setattr(RecordWriter, "append", append)
        for task in tasks(work.sweep):
            run_task(task, Worker(work, sweep_dir))


def check_every_stop(sweep: Sweep, tmp_path: Path, *, step: int = 1) -> None:
    undisturbed = science(run_fresh(sweep, tmp_path))
    for records in range(1, len(undisturbed) + 1, step):
        sweep_dir = tmp_path / f"stopped-{records}"
        run_some(ScenarioCache(sweep, RunEnvironment(tmp_path)), sweep_dir, records)
        assert len(lines(sweep_dir)) == records
        assert run_all(ScenarioCache(sweep, RunEnvironment(tmp_path)), sweep_dir) == len(undisturbed) - records
        assert science(read_trials(sweep_dir)) == undisturbed
        assert len(lines(sweep_dir)) == len(undisturbed)
