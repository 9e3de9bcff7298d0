"""The contract of executors: in this process and on Ray, the same tasks give the same records."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.execution.executors import Executor, InlineExecutor
from sweeps.execution.ray_executor import RayExecutor, check_address
from sweeps.execution.worker import work_task, workbench
from sweeps.planning.done_work import RecordedWork
from sweeps.planning.missing import missing
from sweeps.planning.schedule import Schedule
from sweeps.planning.task_list import reference_tasks
from sweeps.planning.tasks import CraftPoison, MeasureReferences
from sweeps.storage.record_log import count_trials, read_trials
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.sweeps.conftest import Done
from tests.sweeps.tiny import lines, prepare, run_fresh, science, tiny
from unlearn_core.checks import InputError

pytestmark = pytest.mark.timeout(300)  # workers import for seconds, and for much longer on a busy machine


@pytest.fixture(scope="module", params=["inline", pytest.param("ray", marks=pytest.mark.ray)])
def executor(request: pytest.FixtureRequest) -> Iterator[Executor]:
    """One of each for the whole module: Ray takes seconds to start."""
    made: Executor = InlineExecutor() if request.param == "inline" else RayExecutor("local", cpus=1, gpus=0)
    yield made
    made.close()


def test_the_records_are_those_of_an_undisturbed_run_and_a_failing_cell_stops_no_other(
    executor: Executor, done: Done, tmp_path: Path
) -> None:
    folder = prepare(done.sweep, tmp_path)
    bad = MeasureReferences("no such attack", 1.0, 1)
    left = missing(done.sweep, folder)
    schedule = Schedule(done.sweep, left._replace(references=[bad, *left.references]), RecordedWork(done.sweep, folder))
    executor.run(folder, RunEnvironment(tmp_path), schedule)
    (failed,) = schedule.failed
    assert failed.task == CraftPoison(bad.attack, bad.seed)
    assert (failed.error or "").strip().splitlines()[-1] == "KeyError: 'no such attack'"
    assert science(read_trials(folder)) == science(done.trials)
    assert len(lines(folder)) == len(done.trials)
    assert not (folder / ".tune").exists()


def workers_of(this: int) -> list[int]:
    """Processes of this machine that descend from `this` and walk tasks for Ray."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                names[int(entry.name)] = (entry / "cmdline").read_bytes().partition(b"\0")[0].decode()
            except OSError:
                continue
    below = {this}
    while found := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= found
    return [pid for pid in below if names.get(pid, "").startswith("ray::") and ".train" in names[pid]]


def kill_a_worker(folder: Path, records: int, killed: list[int]) -> None:
    """Once there are so many records, SIGKILL every process that is walking a task."""
    known: dict[Path, tuple[int, int]] = {}
    end = time.monotonic() + 240
    while count_trials(folder, known) < records and time.monotonic() < end:
        time.sleep(0.002)
    for pid in workers_of(os.getpid()):
        os.kill(pid, signal.SIGKILL)
        killed.append(pid)


@pytest.mark.parametrize("executor", [pytest.param("ray", marks=pytest.mark.ray)], indirect=True)
def test_a_worker_that_is_killed_is_replaced_and_nothing_changes(executor: Executor, tmp_path: Path) -> None:
    sweep = tiny(methods=["gd"], search={"trials": 60, "startup": 1})
    undisturbed = run_fresh(sweep, tmp_path / "undisturbed")
    folder = prepare(sweep, tmp_path)
    for task in reference_tasks(sweep):
        assert work_task(folder, RunEnvironment(tmp_path), task).error is None
    killed: list[int] = []
    watcher = threading.Thread(target=kill_a_worker, args=(folder, len(lines(folder)) + 5, killed))
    watcher.start()
    schedule = Schedule(sweep, missing(sweep, folder), RecordedWork(sweep, folder), whole_studies=True)
    executor.run(folder, RunEnvironment(tmp_path), schedule)
    watcher.join()
    assert killed
    assert schedule.failed == []
    assert len({path.name for path in folder.glob("records/badnets--gd/*")}) == 2  # two workers wrote
    assert science(read_trials(folder)) == science(undisturbed)
    assert len(lines(folder)) <= len(undisturbed) + 1


@pytest.mark.parametrize("executor", [pytest.param("ray", marks=pytest.mark.ray)], indirect=True)
def test_what_no_machine_has_is_said(
    executor: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    executor._check_room("10.0.0.1:6379")
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(executor, "_share", {"cpu": 1, "gpu": 64})
    executor._check_room("10.0.0.1:6379")
    assert "no machine of the cluster has resources.cpus=1 and resources.gpus=64 now" in capsys.readouterr().err
    with pytest.raises(InputError, match="this machine does not have resources.cpus=1 and resources.gpus=64; lower it"):
        executor._check_room("local")


def test_addresses_that_ray_resolves_itself_are_left_to_it() -> None:
    for address in ("local", "auto", "ray://10.0.0.1:10001"):
        check_address(address)


def test_a_machine_with_other_data_takes_no_part(tmp_path: Path) -> None:
    sweep = tiny()
    folder = prepare(sweep, tmp_path)
    workbench.cache_clear()
    data = ScenarioCache(sweep, RunEnvironment(tmp_path)).dataset.digest
    for digest, problem in ((data, False), ("other files", True)):
        (folder / "sweep.json").write_text(json.dumps({"spec": sweep.to_dict(), "data": digest}))
        workbench.cache_clear()
        error = work_task(folder, RunEnvironment(tmp_path), reference_tasks(sweep)[0]).error
        assert ("was begun on other data than 'digits' is on this machine now" in (error or "")) == problem
    workbench.cache_clear()
