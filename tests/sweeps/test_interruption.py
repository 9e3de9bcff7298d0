"""Ctrl-C: the first press lets what runs finish, the second stops at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from sweeps.commands.mirroring import Mirroring
from sweeps.commands.run import main
from sweeps.execution.interruption import run_or_explain, two_stages
from sweeps.execution.worker import work_task
from sweeps.planning.done_work import RecordedWork
from sweeps.planning.missing import missing
from sweeps.planning.schedule import Schedule
from sweeps.planning.task_list import reference_tasks, study_tasks
from sweeps.planning.tasks import Outcome
from sweeps.storage.record_log import read_trials
from sweeps.trials.scenario_cache import RunEnvironment
from tests.sweeps.tiny import prepare, start, tiny, write_config

pytestmark = pytest.mark.slow

PLUGIN = Path(__file__).with_name("slow_method.py")
EXECUTORS = pytest.mark.parametrize(
    "options", [["--inline"], pytest.param([], marks=[pytest.mark.ray, pytest.mark.slow])], ids=["inline", "ray"]
)
FIXED = {"lr": 0.1, "epochs": 1, "schedule": "constant"}
KEPT = "stopped; finished trials are kept: run the same command again to go on"


class Running:
    """The command on a sweep of trials that take `seconds`; its process group gets the signals, as at a terminal."""

    def __init__(self, folder: Path, options: list[str], seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = folder / "log"
        monkeypatch.setenv("UNHURRIED_LOG", str(self.log))
        methods = [{"name": "unhurried", "fixed": {"seconds": seconds, **FIXED}}]
        config = write_config(folder, methods=methods, seeds={"tuning": [0, 2, 3, 4], "confirmation": [1, 5, 6, 7]})
        self.arguments = ["--config", config, "--out", folder, "--no-tracking", "--plugin", PLUGIN, *options]
        self.folder = folder / "tiny"
        self.process = start(*self.arguments, start_new_session=True)

    def events(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def wait_for_trial(self) -> None:
        end = time.monotonic() + 240
        while not self.events():
            assert self.process.poll() is None, self.process.communicate()[1]
            assert time.monotonic() < end
            time.sleep(0.05)

    def press(self, number: int = signal.SIGINT) -> None:
        os.killpg(self.process.pid, number)


@EXECUTORS
@pytest.mark.timeout(400)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_press_lets_running_trials_finish(
    options: list[str], number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = Running(tmp_path, options, 2.0, monkeypatch)
    running.wait_for_trial()
    if number == signal.SIGTERM:
        os.kill(running.process.pid, number)  # sent by a batch system or `ray job stop`, to the command alone
    else:
        running.press(number)
    _, said = running.process.communicate(timeout=120)
    assert running.process.returncode == 130, said
    assert "stopping once the trials that run are finished and recorded; press Ctrl-C again to stop at once" in said
    assert said.rstrip().endswith(KEPT)
    assert "Traceback" not in said
    trials = [trial for trial in read_trials(running.folder) if trial.method == "unhurried"]
    events = running.events()
    assert events.count("begin") == events.count("end") == len(trials) in (1, 2)
    assert set(pd.read_parquet(running.folder / "records.parquet").method) >= {"unhurried", "oracle"}
    assert not (running.folder / ".lock").exists()


@EXECUTORS
@pytest.mark.timeout(400)
def test_the_second_press_stops_at_once(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running = Running(tmp_path, options, 600.0, monkeypatch)
    running.wait_for_trial()
    running.press()
    with pytest.raises(subprocess.TimeoutExpired):
        running.process.wait(timeout=3)
    running.press()
    _, said = running.process.communicate(timeout=60)
    assert running.process.returncode == 130, said
    assert said.rstrip().endswith(KEPT)
    assert "Traceback" not in said
    assert "end" not in running.events()
    assert not (running.folder / ".lock").exists()


def test_a_run_goes_on_after_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wish to stop dies with the run that had it."""
    running = Running(tmp_path, ["--inline"], 0.3, monkeypatch)
    running.wait_for_trial()
    running.press()
    running.process.communicate(timeout=120)
    assert (running.folder / ".stop").exists()
    again = start(*running.arguments)
    _, said = again.communicate(timeout=200)
    assert again.returncode == 0, said
    trials = [trial for trial in read_trials(running.folder) if trial.method == "unhurried"]
    assert running.events().count("begin") == len(trials) == 8
    assert len({json.dumps([t.stage, t.seed]) for t in trials}) == 8


def test_nothing_is_begun_any_more(tmp_path: Path) -> None:
    """Cells that were handed out, but not begun, are left as they are, whatever their kind."""
    sweep = tiny()
    folder = prepare(sweep, tmp_path)
    (folder / ".stop").touch()
    schedule = Schedule(sweep, missing(sweep, folder), RecordedWork(sweep, folder))
    while (task := schedule.next(4)) is not None:
        assert work_task(folder, RunEnvironment(tmp_path), task) == Outcome()
        schedule.stopped = True
        schedule.done(task, Outcome())
    assert schedule.finished
    for task in (*reference_tasks(sweep), *study_tasks(sweep)):
        assert work_task(folder, RunEnvironment(tmp_path), task) == Outcome()
    assert not (folder / "records").exists() and not (tmp_path / "store").exists()


BACKGROUND = """
import signal, time
from sweeps.execution.interruption import run_or_explain, two_stages
signal.signal(signal.SIGINT, signal.SIG_IGN)
with two_stages(lambda: None, "stopping"):
    print("ready", flush=True)
    time.sleep(1.5)
print("finished")
"""


def test_what_was_started_in_the_background_ignores_the_terminal() -> None:
    process = subprocess.Popen([sys.executable, "-c", BACKGROUND], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate()[0] == "finished\n"


def test_handlers_are_put_back_and_stop_is_called_only_when_asked() -> None:
    called: list[str] = []
    before = signal.getsignal(signal.SIGTERM)
    with two_stages(lambda: called.append("stop"), "stopping"):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
    with two_stages(lambda: called.append("stop"), "stopping"):
        os.kill(os.getpid(), signal.SIGTERM)
        end = time.monotonic() + 10
        while not called and time.monotonic() < end:
            time.sleep(0.01)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert called == ["stop"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGRTMIN + 3])
def test_a_command_that_was_killed_is_told(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    command = [sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(number)})"]
    assert run_or_explain(command, "the report was not made") == 1
    said = capsys.readouterr().err
    assert said.startswith(f"error: the report was not made, as its process was ended by signal {int(number)} (")
    assert said.count("\n") == 1 and "make it again: " in said


def test_a_command_that_ends_by_itself_speaks_for_itself(capsys: pytest.CaptureFixture[str]) -> None:
    for code in (0, 2):
        assert run_or_explain([sys.executable, "-c", f"raise SystemExit({code})"], "no report") == code
    assert capsys.readouterr().err == ""


def test_a_mirror_that_is_killed_while_it_is_waited_for_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "sweep.json").write_text("{}")
    killed = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    monkeypatch.setattr(Mirroring, "command", lambda self: killed)
    arguments = ["--config", write_config(tmp_path), "--out", tmp_path, "--inline", "--sync-mlflow"]
    assert main([str(argument) for argument in arguments]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: MLflow has not got everything, as its process was ended by signal 9 (")
    assert said.endswith(f"; the records are kept, send the rest: unlearn sync {tmp_path / 'tiny'}\n")
