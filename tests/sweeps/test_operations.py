"""`python -P -m sweeps status|failures|export`: what they say agrees with the records."""

from __future__ import annotations

import contextlib
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from sweeps.__main__ import main
from sweeps.commands.failures import failure_lines, group_failures, signature
from sweeps.execution.run_task import Worker, run_task
from sweeps.execution.worker import at_work
from sweeps.planning.task_list import reference_tasks, study_tasks
from sweeps.schema.stages import Stage
from sweeps.storage.leases import Lease
from sweeps.storage.record_log import RecordWriter, read_trials
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.sweeps.conftest import Done
from tests.sweeps.tiny import record, run_fresh, tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep of which nothing is done."""
    sweep = tiny()
    path = tmp_path / sweep.name
    path.mkdir()
    (path / "sweep.json").write_text(json.dumps({"spec": sweep.to_dict()}))
    return path


def rows(text: str) -> dict[str, list[str]]:
    """Numbers of the table's lines, by their second word."""
    lines = [line.split() for line in text.splitlines()[4:]]
    return {words[1] if len(words) == 8 else words[0]: words[-6:] for words in lines}


def ask(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([*map(str, arguments)]) == 0
    return capsys.readouterr().out


def test_status_before_during_and_after(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep, work = tiny(), ScenarioCache(tiny(), RunEnvironment(folder.parent))
    most = {task.name: task.most_trials(sweep) for task in (*reference_tasks(sweep), *study_tasks(sweep))}
    text = ask(capsys, "status", folder)
    assert "stopped: run its command again to go on" in text
    assert [rows(text)["all"][i] for i in (0, 3)] == ["0", str(sum(most.values()))]

    lease = Lease(folder / ".lock")
    assert lease.take() is None
    for task in reference_tasks(sweep):
        run_task(task, Worker(work, folder))
    study = study_tasks(sweep)[0]
    with at_work(folder, study):
        text = ask(capsys, "status", folder)
    assert f"running: process {lease.holder.pid} on {lease.holder.host}" in text
    table = rows(text)
    assert table["references"][3] == "0"
    assert table[study.method][:4] == ["0", "0", "1", str(most[study.name])]
    assert sum(int(line[2]) for name, line in table.items() if name != "all") == 1

    lease.release()

    for task in study_tasks(sweep):
        run_task(task, Worker(work, folder))
    trials = read_trials(folder)
    text = ask(capsys, "status", folder)
    assert f"finished: {len(trials)} trials, 0 failed" in text
    assert rows(text)["all"][:4] == [str(len(trials)), "0", "0", "0"]


def test_hours_are_those_of_the_records(done: Done, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuned = [trial for trial in done.trials if trial.stage == "tuning"]
    assert all(trial.trial_seconds and trial.oracle_seconds for trial in tuned)
    folder = tmp_path / "tiny"
    folder.mkdir()
    (folder / "sweep.json").write_text(json.dumps({"spec": done.sweep.to_dict()}))
    slow = [replace(trial, trial_seconds=3600.0) for trial in done.trials if trial.method == "gd"]
    writer = RecordWriter(folder, slow[0].study)
    for trial in slow:
        writer.append(trial)
    assert rows(ask(capsys, "status", folder))["gd"][4] == f"{len(slow):.3f}"


def test_tasks_that_train_or_try_one_thing_are_shown_where_they_belong(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, study = tiny(), study_tasks(tiny())[0]
    models = reference_tasks(sweep)[0].needs(sweep)
    (poison,) = models[0].needs(sweep)
    trials = [study.trial(Stage.TUNING, n, 0) for n in (1, 12)]
    with contextlib.ExitStack() as stack:
        for task in (poison, models[0], *trials, replace(trials[0], proposal=3, whole_gpu=True)):
            stack.enter_context(at_work(folder, task))
        table = rows(ask(capsys, "status", folder))
    assert (table["references"][2], table[study.method][2], table["all"][2]) == ("2", "3", "5")


def test_an_attack_may_have_any_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep = tiny(attacks=[{"name": "badnets", "label": "a--b", "fraction": 0.1, "size": 2}])
    run_fresh(sweep, tmp_path)
    (tmp_path / "tiny" / "sweep.json").write_text(json.dumps({"spec": sweep.to_dict()}))
    assert {"gd", "ssd"} <= rows(ask(capsys, "status", tmp_path / "tiny")).keys()


@pytest.mark.parametrize("content", ["", "{", "[1]", "{}", '"spec"'])
def test_a_damaged_manifest_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str) -> None:
    (tmp_path / "sweep.json").write_text(content)
    for question in ("status", "failures", "export"):
        assert main([question, str(tmp_path)]) == 2
        assert "sweep.json is damaged (spec); delete it" in capsys.readouterr().err


def test_a_dead_worker_is_not_shown_as_running(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task = study_tasks(tiny())[0]
    lease = Lease(folder / ".working" / task.name)
    lease.path.parent.mkdir()
    lease.take()
    mark = json.loads(lease.path.read_text())
    lease.release()
    lease.path.write_text(json.dumps(mark | {"pid": 2**22 + 1, "born": "1"}))
    assert rows(ask(capsys, "status", folder))["all"][2] == "0"


TRACE = """Traceback (most recent call last):
  File "a.py", line 3, in f
    g()
  File "b.py", line {line}, in g
    raise ValueError("{text}")
ValueError: {text}
"""


def test_failures_are_grouped_by_kind_and_place(done: Done) -> None:
    errors = [TRACE.format(line=5, text="x is 1"), TRACE.format(line=5, text="x is 2"), TRACE.format(line=9, text="y")]
    trials = [replace(trial, error=error) for trial, error in zip(done.trials, errors, strict=False)]
    groups, total = group_failures([*trials, done.trials[-1]])
    assert ([group.count for group in groups], total) == ([2, 1], len(trials) + 1)
    assert groups[0].title == 'ValueError: File "b.py", line 5, in g'
    assert groups[0].example == errors[0]
    assert signature("Segmentation fault") == ("Segmentation fault", "")


def test_of_many_failures_a_few_are_named(folder: Path, done: Done) -> None:
    failed = replace(done.trials[0], error=TRACE.format(line=5, text="x"), rungs=())
    made = [replace(failed, trial_id=f"t{n:03d}", study=f"a--m{n % 50:02d}") for n in range(150)]
    record(folder, made)
    text = "\n".join(failure_lines(folder))
    assert text.startswith("150 of 150 trials failed, in 1 ways\n")
    assert "a--m19 (3) and 30 more tasks\n" in text
    assert sum(line.startswith("  t") for line in text.splitlines()) == 3


def test_failures_of_a_sweep(folder: Path, done: Done, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(capsys, "failures", folder) == "none of 0 trials failed\n"
    one, other = [trial for trial in done.trials if trial.stage == "tuning"][:2]
    RecordWriter(folder, "a--gd").append(replace(one, error=TRACE.format(line=5, text="x"), rungs=()))
    RecordWriter(folder, "a--gd").append(other)
    text = ask(capsys, "failures", folder)
    assert text.startswith("1 of 2 trials failed, in 1 ways\n")
    assert "raise ValueError" in text
    assert one.trial_id in text


def test_an_export_holds_what_is_needed_to_read_it(
    folder: Path, done: Done, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = RecordWriter(folder, "cell")
    for trial in done.trials:
        writer.append(trial)
    (folder / "report").mkdir()
    (folder / "report" / "index.html").write_text("page")
    (folder / "tracking.log").write_text("private")
    target = folder.parent / "out.tar.gz"
    assert ask(capsys, "export", folder, "--to", target) == f"wrote {target}\n"
    with tarfile.open(target) as archive:
        assert {m.name for m in archive if m.isfile()} == {
            "tiny/sweep.json", "tiny/records.parquet", "tiny/report/index.html"
        }  # fmt: skip
        assert {(m.uid, m.uname) for m in archive} == {(0, "")}
        archive.extractall(folder.parent / "read", filter="data")
    frame = pd.read_parquet(folder.parent / "read" / "tiny" / "records.parquet")
    assert set(frame["trial_id"]) == {trial.trial_id for trial in done.trials}
    assert main(["export", str(folder), "--to", str(target)]) == 2
    assert "exists already; name another file" in capsys.readouterr().err


def test_a_folder_without_a_sweep_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("status", "failures", "export"):
        assert main([name, str(tmp_path)]) == 2
        assert capsys.readouterr().err.startswith(f"error: there is no sweep in {tmp_path}")
