"""Trials that lose their process: counted by notes, recorded as failed after some times, and the rest goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path

import pytest

from sweeps.execution import worker
from sweeps.execution.crash_counter import LOSSES, START, Attempts, Note, losses_after, noted
from sweeps.planning.task_list import reference_tasks
from sweeps.planning.tasks import Task
from sweeps.storage.holders import this_machine, this_process
from sweeps.storage.leases import Lease
from sweeps.storage.s3 import S3Path
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.sweeps.object_store import bucket, endpoint, keys
from tests.sweeps.tiny import lines, tiny
from tests.sweeps.wild import (
    STUDY,
    Rest,
    _alone,
    begin_worker,
    end_of,
    rest,
    tuned,
    undisturbed,
    wild,
    with_references,
)

HERE = this_machine()
__all__ = ["_alone", "bucket", "endpoint", "undisturbed"]  # fixtures


def test_a_trial_that_crashes_its_process_is_recorded_as_failed_after_some_times(
    tmp_path: Path, undisturbed: Rest
) -> None:
    folder, said = with_references(wild(tmp_path, "crashes"), tmp_path), tmp_path / "said"
    for _ in range(LOSSES):
        assert end_of(begin_worker(folder, said)) == -signal.SIGSEGV
        assert list(tuned(folder)) == [0]
    assert end_of(begin_worker(folder, said)) == 0
    found = tuned(folder)
    assert [trial.error is None for trial in found.values()] == [True, False, True]
    assert found[1].error.startswith("ProcessLostError: the worker process was lost 3 times")
    assert found[1].error.endswith("during this trial")
    assert found[1].rungs == ()
    assert rest(folder) == undisturbed
    assert len(lines(folder)) == 11
    assert not list((folder / ".attempts").iterdir())


def busy(folder: Path, lost: int) -> bool:
    """Whether a worker of the study has noted that it is at the second trial, where so many were lost before it."""
    try:
        note = json.loads((folder / ".attempts" / STUDY.name).read_text())
    except (FileNotFoundError, ValueError):
        return False
    return (
        0 in tuned(folder)
        and note["at"] not in (START, tuned(folder)[0].trial_id)
        and (note["losses"].get(note["at"], 0) == lost)
    )


def test_a_worker_killed_in_the_middle_of_a_trial(tmp_path: Path, undisturbed: Rest) -> None:
    folder, said = with_references(wild(tmp_path, "sleeps"), tmp_path), tmp_path / "said"
    for lost in range(LOSSES):
        process, until = begin_worker(folder, said), time.monotonic() + 60
        while not busy(folder, lost):
            assert time.monotonic() < until
            time.sleep(0.01)
        os.kill(process, signal.SIGKILL)
        assert end_of(process) == -signal.SIGKILL
    assert end_of(begin_worker(folder, said)) == 0
    assert "lost 3 times" in tuned(folder)[1].error
    assert rest(folder) == undisturbed
    assert len(lines(folder)) == 11


def test_losses_at_different_trials_do_not_add_up(tmp_path: Path) -> None:
    path = tmp_path / "note"
    for trial in ("a", "b", "a", "b"):
        attempts = Attempts(path, None)
        assert attempts.begin(START) < LOSSES
        assert attempts.begin(trial) == 0  # and the process is lost


def test_losses_at_a_trial_survive_one_on_the_way_to_it(tmp_path: Path) -> None:
    path = tmp_path / "note"
    for before, known in ((True, 0), (False, 1), (True, 1), (True, 2)):
        attempts = Attempts(path, None)
        attempts.begin(START)
        if before:
            assert attempts.begin("a") == known
    attempts.end()
    assert Attempts(path, None).begin("a") == 0


def test_a_trial_whose_scenario_alone_ends_the_process_does_not_go_on_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, said = with_references(wild(tmp_path, "behaves"), tmp_path), tmp_path / "said"
    monkeypatch.setattr(ScenarioCache, "bench", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    codes = [end_of(begin_worker(folder, said)) for _ in range(2 * LOSSES + 1)]
    assert codes == [-signal.SIGKILL] * 2 * LOSSES + [1]
    assert "ProcessLostError: the worker process was lost 6 times" in said.read_text()


@pytest.mark.parametrize("task", [STUDY, reference_tasks(tiny())[0]], ids=["study", "reference"])
def test_a_cell_that_never_gets_to_a_trial_is_given_up_until_it_is_asked_for_again(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, said = with_references(wild(tmp_path, "behaves"), tmp_path), tmp_path / "said"
    monkeypatch.setattr(worker, "workbench", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    codes = [end_of(begin_worker(folder, said, task)) for _ in range(LOSSES + 2)]
    assert codes == [-signal.SIGKILL] * LOSSES + [1, -signal.SIGKILL]
    last = said.read_text().strip().splitlines()[-1]
    assert "lost 3 times" in last
    assert last.endswith("; run the same command again to try it again")


def test_an_error_and_ctrl_c_are_no_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = with_references(wild(tmp_path, "behaves"), tmp_path)
    for problem in (ValueError, KeyboardInterrupt, SystemExit) * LOSSES:
        monkeypatch.setattr(ScenarioCache, "bench", lambda *_, problem=problem: (_ for _ in ()).throw(problem()))
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            assert "ValueError" in (worker.work_task(folder, RunEnvironment(tmp_path), STUDY).error or "")
    assert not list((folder / ".attempts").iterdir())


@pytest.mark.parametrize(
    "note, here, known",
    [
        (Note("a", {}, "run 1", False, HERE), "run 1", {"a": 1}),
        (Note("a", {"a": 1}, "run 1", False, HERE), "run 1", {"a": 2}),
        (Note("a", {"a": 1}, "run 1", False, HERE), "run 2", {"a": 1}),  # stopped together with its command
        (
            Note("a", {"a": 1}, "run 1", True, HERE),
            "run 2",
            {"a": 2},
        ),  # it was the command, and may have been killed by a
        (Note(START, {START: 1, "a": 1}, "run 1", False, HERE), "run 1", {START: 2, "a": 1}),
        (Note(START, {START: 2, "a": 1}, "run 1", True, HERE), "run 2", {"a": 1}),
        (Note("a", {"a": 2}, "run 1", False, "a machine that was preempted"), "run 1", {"a": 2}),
    ],
)
def test_what_another_run_of_the_command_counts(note: Note, here: str, known: dict[str, int]) -> None:
    assert losses_after(note, here) == known


def test_the_note_says_which_run_of_the_command_it_is_of(tmp_path: Path) -> None:
    folder, lock = with_references(tiny(), tmp_path), Lease(tmp_path / "tiny" / ".lock")
    assert lock.take() is None
    with noted(folder, STUDY):
        mine = json.loads((folder / ".attempts" / STUDY.name).read_text())
    assert (mine["run"], mine["inline"]) == (lock.holder.token, True)
    lock.release()
    with noted(folder, STUDY):
        mine = json.loads((folder / ".attempts" / STUDY.name).read_text())
    assert (mine["run"], mine["inline"]) == ("", False)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"at": 1}', b"\xff"])
def test_a_note_that_was_cut_short_is_none(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "note").write_bytes(data)
    assert Attempts(tmp_path / "note", None).begin("a") == 0


def test_a_note_that_cannot_be_written_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    attempts = Attempts(tmp_path / "file" / "note", None)
    assert attempts.begin("a") == 0
    attempts.end()


def test_notes_in_an_object_store(bucket: S3Path) -> None:
    path = bucket / ".attempts" / "cell"
    for _ in range(3):
        assert Attempts(path, this_process()).begin("a") == 0  # each time another run of the command
        assert keys(bucket) == [".attempts/cell"]
    for known in range(3):
        assert Attempts(path, None).begin("a") == known
    Attempts(path, None).end()
    assert keys(bucket) == []
    assert Attempts(path, None).begin("a") == 0
