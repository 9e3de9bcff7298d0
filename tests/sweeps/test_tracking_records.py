"""What a mirror keeps of the records tells it the same as the records themselves, and is read once."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sweeps.schema.lines import to_line
from sweeps.storage.record_log import read_trials
from sweeps.tracking import record_cache, rows
from sweeps.tracking.record_cache import RecordCache
from tests.sweeps.conftest import Done
from tests.sweeps.mirrored import Sweep, trial


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read, as they are read."""
    names: list[str] = []
    read = record_cache.read_parts

    def read_parts(folder: Path, parts: Any) -> Any:
        names.extend(name for name, _ in parts)
        return read(folder, parts)

    monkeypatch.setattr(record_cache, "read_parts", read_parts)
    return names


def test_outlines_tell_the_same_as_trials(done: Done) -> None:
    outlines, trials = RecordCache(done.dir).outlines(), read_trials(done.dir)
    for told in (rows.mark, rows.group_tags):
        assert told(outlines) == told(trials)
    for each in (rows.times_ms, rows.run_status, lambda one: one.study):
        assert [each(outline) for outline in outlines] == [each(trial) for trial in trials]
    size, whole = (len(str(kind)) for kind in (outlines, trials))
    assert size < whole / 5


def test_whole_trials_come_in_the_order_asked_for(done: Done) -> None:
    records = RecordCache(done.dir)
    outlines = records.outlines()
    assert records.whole(outlines) == read_trials(done.dir)
    assert records.whole(outlines[::-2]) == read_trials(done.dir)[::-2]


def test_only_what_changed_is_read_again(done: Done, tmp_path: Path, reads: list[str]) -> None:
    shutil.copytree(done.dir, tmp_path / "sweep")
    records = RecordCache(tmp_path / "sweep")
    before = records.outlines()
    reads.clear()
    assert records.outlines() == before
    assert reads == []
    changed = next((tmp_path / "sweep" / "records").glob("*/*.jsonl"))
    with open(changed, "ab") as file:
        file.write(to_line(replace(done.trials[0], trial_id="another")))
    assert len(records.outlines()) == len(before) + 1
    assert {name.partition("/")[0] for name in reads} == {changed.parent.name}


def test_a_failed_trial_and_one_of_two_cells(tmp_path: Path) -> None:
    sweep = Sweep(tmp_path, "odd", "")
    failed = trial(1, error="Traceback\n" + "x" * 999, rungs=[])
    sweep.write([trial(0), failed])
    shutil.copytree(next((sweep.folder / "records").iterdir()), sweep.folder / "records" / "zz")
    records = RecordCache(sweep.folder)
    outlines = records.outlines()
    assert [rows.run_status(outline) for outline in outlines] == ["FINISHED", "FAILED"]
    assert records.whole(outlines)[1].error == failed.error


@pytest.mark.slow
def test_a_sent_study_is_not_read_as_a_whole(tmp_path: Path, reads: list[str]) -> None:
    sweep = Sweep(tmp_path, "again", f"sqlite:///{tmp_path}/mlflow.db")
    sweep.write([trial(0, "a"), trial(1, "b")])
    sweep.sync()
    reads.clear()
    assert sweep.sync().new == 0
    assert len(reads) == 2  # once each, for the outlines
