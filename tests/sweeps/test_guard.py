"""Trials that hang, or that kill their process: recorded as failed, each once, and the rest goes on."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from sweeps import guard, worker
from sweeps.attempts import LOSSES, START, Attempts, Note, losses_after, noted
from sweeps.cell import Cell, reference_cells
from sweeps.files import Remote
from sweeps.guard import deadline, time_limit
from sweeps.leases import Lease, this_process
from sweeps.run import run_cell
from sweeps.store import read_trials
from sweeps.trial import Request
from sweeps.workbench import Place, Workbench
from tests.sweeps.object_store import bucket, endpoint, keys
from tests.sweeps.test_plugins import forget_plugins
from tests.sweeps.tiny import lines, science, tiny
from tests.sweeps.wild import STUDY, _alone, begin_worker, end_of, tuned, wild, with_references
from unlearn_core.checks import InputError

__all__ = ["_alone", "bucket", "endpoint"]  # fixtures

Rest = dict[tuple[object, ...], object]
LIMIT = {"trial_timeout": 3}
HANGS = ["loops", "computes", *(pytest.param(way, marks=pytest.mark.slow) for way in ("sleeps", "waits in C"))]


def rest(folder: Path) -> Rest:
    """What must be as in an undisturbed run: the rungs of all trials but that one."""
    kept = [trial for trial in read_trials(folder) if trial["error"] is None]
    by_id = science(kept)
    names = ("stage", "method", "seed", "proposal", "chosen_for", "attack_took")
    return {tuple(t[name] for name in names): by_id[t["trial_id"]]["rungs"] for t in kept}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Rest:
    out = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        forget_plugins(patch)
        sweep = wild(out, "behaves")
        folder = with_references(sweep, out)
        run_cell(Workbench(sweep, Place(out)), folder, STUDY)
    found = rest(folder)
    assert len(found) == 7 + 3 + 1  # references, proposals, the choice
    return {key: rungs for key, rungs in found.items() if key[3] != 1}


# hanging


@pytest.mark.parametrize("way", HANGS)
def test_a_trial_that_hangs_is_recorded_as_failed_and_ends_its_process(
    tmp_path: Path, way: str, undisturbed: Rest
) -> None:
    folder, said = with_references(wild(tmp_path, way, resources=LIMIT), tmp_path), tmp_path / "said"
    start = time.monotonic()
    assert end_of(begin_worker(folder, said)) == os.EX_TEMPFAIL
    assert time.monotonic() - start < 60
    trial = tuned(folder)[1]
    last = trial["error"].splitlines()[-1]
    assert last == "TimeoutError: not finished after 3 s; raise resources.trial_timeout if the method is only slow"
    assert "wild.py" in trial["error"], "where it hung"
    assert "guard.py" not in trial["error"]
    assert (trial["rungs"], trial["trial_seconds"]) == ([], pytest.approx(3, abs=3))
    message = said.read_text().strip()
    assert message.startswith(
        f"trial {trial['trial_id']} of badnets--wild is recorded as failed: not finished after 3 s;"
    )
    assert message.endswith("its process ends, run the same command again to go on")
    assert len(message.splitlines()) == 1
    assert end_of(begin_worker(folder, said)) == 0
    assert [trial["error"] is None for trial in tuned(folder).values()] == [True, False, True]
    assert rest(folder) == undisturbed
    assert len(lines(folder)) == 11


@pytest.mark.slow
def test_native_code_that_stops_all_threads_ends_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "GRACE", 0.5)
    sweep = wild(tmp_path, "waits in C with the lock", resources=LIMIT)
    folder, said = with_references(sweep, tmp_path), tmp_path / "said"
    assert [end_of(begin_worker(folder, said)) for _ in range(LOSSES + 1)] == [1, 1, 1, 0]
    assert "wild.py" in said.read_text(), "where it hung"
    assert "ProcessLostError: the worker process was lost 3 times" in tuned(folder)[1]["error"]
    assert len(lines(folder)) == 11


def test_a_trial_that_ends_at_the_very_moment_is_recorded_once(tmp_path: Path) -> None:
    record, generator = tmp_path / "record", random.Random(0)
    sleeps, seconds = [0.02 + generator.uniform(-1, 1) * 1e-3 for _ in range(80)], 0.02

    def write(text: str) -> None:
        time.sleep(0.001)  # as the disk would
        with open(record, "a") as file:
            file.write(text + "\n")

    def do(begin: int) -> None:
        for number, sleep in enumerate(sleeps[begin:], start=begin):
            with deadline(seconds, lambda _, number=number: write(f"{number} late")):
                time.sleep(sleep)
            write(f"{number} done")

    record.touch()
    while (done := len(record.read_text().splitlines())) < len(sleeps):
        process = os.fork()
        if not process:
            do(done)
            os._exit(0)
        assert end_of(process) in (0, os.EX_TEMPFAIL)
    found = [line.split() for line in record.read_text().splitlines()]
    assert [int(number) for number, _ in found] == list(range(len(sleeps)))
    assert 10 < sum(how == "late" for _, how in found) < len(sleeps) - 10


def test_an_error_in_a_trial_takes_its_deadline_away() -> None:
    with pytest.raises(ZeroDivisionError), deadline(0.05, lambda _: os.write(1, b"given up")):
        raise ZeroDivisionError
    time.sleep(0.2)  # else this process has ended


def test_a_record_that_cannot_be_written_does_not_keep_the_process(tmp_path: Path) -> None:
    process = os.fork()
    if not process:
        with deadline(0.01, lambda _: 1 / 0):  # type: ignore[arg-type, return-value]
            time.sleep(1e6)
    assert end_of(process) == os.EX_TEMPFAIL


def request(stage: str, budgets: tuple[float, ...]) -> Request:
    return Request(
        attack="badnets", seed=1, discovery_rate=1, stage=stage, method="gd", settings=None, budgets=budgets, study="s"
    )


def test_the_limit_by_default_is_far_above_what_trials_need(tmp_path: Path) -> None:
    sweep = tiny(ensemble={"members": 8})
    bench = Workbench(sweep, Place(tmp_path)).bench("badnets", 1, "test")
    oracle = bench.oracle.cost.seconds
    assert time_limit(sweep, bench, request("tuning", (0.1, 0.3))) == pytest.approx(600 + 20 * oracle)
    assert time_limit(sweep, bench, request("tuning", (0.5, 1.0))) == pytest.approx(600 + 30 * oracle)
    assert time_limit(sweep, bench, request("ensemble", (0.1,))) == pytest.approx(16 * (600 + 20 * oracle))
    given = tiny(ensemble={"members": 8}, resources={"trial_timeout": 60})
    assert time_limit(given, bench, request("tuning", (0.5, 1.0))) == 60
    assert time_limit(given, bench, request("ensemble", (0.1,))) == 16 * 60


@pytest.mark.parametrize("value", [0, -5, 0.5, 1e9, "soon", True, float("nan")])
def test_limits_that_make_no_sense_are_refused(value: object) -> None:
    with pytest.raises(InputError, match="trial_timeout"):
        tiny(resources={"trial_timeout": value})


def test_the_limit_changes_no_identity() -> None:
    assert tiny(resources={"trial_timeout": 60}).identity() == tiny().identity()


# lost processes


def test_a_trial_that_crashes_its_process_is_recorded_as_failed_after_some_times(
    tmp_path: Path, undisturbed: Rest
) -> None:
    folder, said = with_references(wild(tmp_path, "crashes"), tmp_path), tmp_path / "said"
    for _ in range(LOSSES):
        assert end_of(begin_worker(folder, said)) == -signal.SIGSEGV
        assert list(tuned(folder)) == [0]
    assert end_of(begin_worker(folder, said)) == 0
    found = tuned(folder)
    assert [trial["error"] is None for trial in found.values()] == [True, False, True]
    assert found[1]["error"].startswith("ProcessLostError: the worker process was lost 3 times")
    assert found[1]["error"].endswith("during this trial")
    assert found[1]["rungs"] == []
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
        and note["at"] not in (START, tuned(folder)[0]["trial_id"])
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
    assert "lost 3 times" in tuned(folder)[1]["error"]
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
    monkeypatch.setattr(Workbench, "bench", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    codes = [end_of(begin_worker(folder, said)) for _ in range(2 * LOSSES + 1)]
    assert codes == [-signal.SIGKILL] * 2 * LOSSES + [1]
    assert "ProcessLostError: the worker process was lost 6 times" in said.read_text()


@pytest.mark.parametrize("cell", [STUDY, reference_cells(tiny())[0]], ids=["study", "reference"])
def test_a_cell_that_never_gets_to_a_trial_is_given_up_until_it_is_asked_for_again(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, said = with_references(wild(tmp_path, "behaves"), tmp_path), tmp_path / "said"
    monkeypatch.setattr(worker, "workbench", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    codes = [end_of(begin_worker(folder, said, cell)) for _ in range(LOSSES + 2)]
    assert codes == [-signal.SIGKILL] * LOSSES + [1, -signal.SIGKILL]
    last = said.read_text().strip().splitlines()[-1]
    assert "lost 3 times" in last
    assert last.endswith("; run the same command again to try it again")


def test_an_error_and_ctrl_c_are_no_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = with_references(wild(tmp_path, "behaves"), tmp_path)
    for problem in (ValueError, KeyboardInterrupt, SystemExit) * LOSSES:
        monkeypatch.setattr(Workbench, "bench", lambda *_, problem=problem: (_ for _ in ()).throw(problem()))
        with contextlib.suppress(KeyboardInterrupt, SystemExit):
            assert "ValueError" in (worker.work_cell(folder, Place(tmp_path), STUDY).error or "")
    assert not list((folder / ".attempts").iterdir())


@pytest.mark.parametrize(
    "note, here, known",
    [
        (Note("a", {}, "run 1", False), "run 1", {"a": 1}),
        (Note("a", {"a": 1}, "run 1", False), "run 1", {"a": 2}),
        (Note("a", {"a": 1}, "run 1", False), "run 2", {"a": 1}),  # stopped together with its command
        (Note("a", {"a": 1}, "run 1", True), "run 2", {"a": 2}),  # it was the command, and may have been killed by a
        (Note(START, {START: 1, "a": 1}, "run 1", False), "run 1", {START: 2, "a": 1}),
        (Note(START, {START: 2, "a": 1}, "run 1", True), "run 2", {"a": 1}),
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


def test_notes_in_an_object_store(bucket: Remote) -> None:
    path = bucket / ".attempts" / "cell"
    for _ in range(3):
        assert Attempts(path, this_process()).begin("a") == 0  # each time another run of the command
        assert keys(bucket) == [".attempts/cell"]
    for known in range(3):
        assert Attempts(path, None).begin("a") == known
    Attempts(path, None).end()
    assert keys(bucket) == []
    assert Attempts(path, None).begin("a") == 0
