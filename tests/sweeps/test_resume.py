"""A sweep stopped anywhere goes on as if nothing had happened, and does nothing twice."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from sweeps.commands.driver import Driver
from sweeps.commands.run import main
from sweeps.execution.run_task import Worker, run_task
from sweeps.planning.study import load_study
from sweeps.planning.tasks import MeasureReferences, RunStudy
from sweeps.storage import record_log
from sweeps.storage.record_log import RecordWriter, Trial, read_trials
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.faults.feeding import Feed
from tests.sweeps.conftest import Done
from tests.sweeps.stopping import check_every_stop, run_some
from tests.sweeps.tiny import lines, run_all, run_fresh, science, start, tasks, tiny, write_config


@pytest.mark.slow
def test_stopped_after_any_record(tmp_path: Path) -> None:
    check_every_stop(tiny(search={"trials": 4, "startup": 1}), tmp_path)


@pytest.mark.slow
def test_stopped_after_any_record_with_several_seeds_and_rates(tmp_path: Path) -> None:
    seeds = {"tuning": [0, 3], "confirmation": [1, 2]}
    sweep = tiny(seeds=seeds, discovery_rates=[1, 0.5], methods=["gd"], search={"trials": 3, "startup": 1})
    check_every_stop(sweep, tmp_path, step=5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "search",
    [
        {"mode": "best", "trials": 4, "startup": 1},
        {"sampler": "random", "trials": 3},
        {"sampler": "grid", "grid_points": 1},
    ],
)
def test_stopped_under_every_way_of_searching(tmp_path: Path, search: dict[str, object]) -> None:
    check_every_stop(tiny(search=search), tmp_path, step=4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_trials_handed_out_one_by_one_in_any_order(tmp_path: Path, seed: int) -> None:
    """As by many workers: at each step any trial that can be begun is the next to end."""
    changes = {"seeds": {"tuning": [0, 3], "confirmation": [1, 2]}, "search": {"trials": 8, "startup": 2, "batch": 3}}
    sweep = tiny(methods=["gd"], **changes)
    undisturbed = run_fresh(sweep, tmp_path)
    work, folder, draw = ScenarioCache(sweep, RunEnvironment(tmp_path)), tmp_path / "one by one", random.Random(seed)
    *references, study = tasks(sweep)
    for task in references:
        run_task(task, Worker(work, folder))
    while trials := load_study(sweep, folder, study).open():
        assert run_task(draw.choice(trials), Worker(work, folder)) == 1
    assert science(read_trials(folder)) == science(undisturbed)
    assert len(lines(folder)) == len(undisturbed)


def test_stopped_again_and_again(done: Done, tmp_path: Path) -> None:
    for _ in range(len(done.trials)):
        run_some(ScenarioCache(done.sweep, RunEnvironment(done.out)), tmp_path, 1)
    assert run_all(ScenarioCache(done.sweep, RunEnvironment(done.out)), tmp_path) == 0
    assert science(read_trials(tmp_path)) == science(done.trials)


def test_cells_in_another_order_give_the_same_records(done: Done, tmp_path: Path) -> None:
    work = ScenarioCache(done.sweep, RunEnvironment(tmp_path))
    references = [task for task in tasks(done.sweep) if isinstance(task, MeasureReferences)]
    studies = [task for task in tasks(done.sweep) if isinstance(task, RunStudy)]
    for task in (*references[::-1], *studies[::-1]):
        run_task(task, Worker(work, tmp_path / "tiny"))
    assert science(read_trials(tmp_path / "tiny")) == science(done.trials)


def test_a_finished_sweep_is_left_as_it_is(done: Done, tmp_path: Path) -> None:
    run_fresh(done.sweep, tmp_path)
    before = lines(tmp_path / "tiny")
    assert run_all(ScenarioCache(done.sweep, RunEnvironment(tmp_path)), tmp_path / "tiny") == 0
    assert lines(tmp_path / "tiny") == before


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Driver, "_analyse", lambda self: 0)


def killed_at(records: int, arguments: list[str], *, torn: bool) -> int:
    """Run the command in a forked process that kills itself, as SIGKILL does, at its n-th record; its wait status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    left, append = [records], RecordWriter.append

    def fatal(self: RecordWriter, trial: Trial) -> None:
        left[0] -= 1
        if torn and left[0] == 0:
            self._lines.append(b'{"trial_id": "half')
        else:
            append(self, trial)
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    RecordWriter.append = fatal  # type: ignore[method-assign]
    os._exit(main(arguments))


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("torn", [False, True])
def test_a_driver_killed_at_any_record(done: Done, tmp_path: Path, torn: bool, feed: Feed) -> None:
    config = write_config(tmp_path)
    for records in range(1, len(done.trials) + 1, 3):
        out = tmp_path / str(records)
        arguments = ["--config", str(config), "--out", str(out), "--inline", "--no-tracking"]
        assert os.WTERMSIG(killed_at(records, arguments, torn=torn)) == signal.SIGKILL
        assert len(read_trials(out / "tiny")) == records - torn
        assert main(arguments) == 0
        assert science(read_trials(out / "tiny")) == science(done.trials)
        assert len(lines(out / "tiny")) == len(done.trials) + torn
        assert (out / "tiny" / "records.parquet").exists()
        feed("record cut in the middle" if torn else "driver killed", out / "tiny", done.trials)


@pytest.mark.usefixtures("no_report")
def test_a_driver_killed_in_the_middle_of_an_artifact(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feed: Feed
) -> None:
    arguments = ["--config", str(write_config(tmp_path)), "--out", str(tmp_path), "--inline", "--no-tracking"]
    child = os.fork()
    if not child:
        monkeypatch.setattr(os, "rename", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        os._exit(main(arguments))
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    assert main(arguments) == 0
    assert science(read_trials(tmp_path / "tiny")) == science(done.trials)
    feed("driver killed", tmp_path / "tiny", done.trials)


@pytest.mark.slow
@pytest.mark.usefixtures("no_report")
def test_the_real_command_killed_from_outside(tmp_path: Path) -> None:
    changes = {"methods": ["gd", "ssd", "ngd", "scrub"], "search": {"trials": 12}}
    config = write_config(tmp_path, **changes)
    arguments = ["--config", str(config), "--out", str(tmp_path), "--inline", "--no-tracking"]
    process, known = start(*arguments), {}  # type: ignore[var-annotated]
    while record_log.count_trials(tmp_path / "tiny", known) < 15:
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.kill()
    process.communicate()
    there = lines(tmp_path / "tiny")
    assert main(arguments) == 0
    after = lines(tmp_path / "tiny")
    assert 15 <= len(there) < len(after)
    assert set(there) < set(after)
    undisturbed = science(run_fresh(tiny(**changes), tmp_path / "other"))
    assert science(read_trials(tmp_path / "tiny")) == undisturbed
    assert len(after) - len(undisturbed) in (0, 1)  # at most the one line that the kill tore
