"""Storage that fails: full, read-only, damaged, or with a wrong clock. Afterwards the same command completes."""

from __future__ import annotations

import itertools
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sweeps.commands.driver import Driver
from sweeps.commands.run import main
from sweeps.schema.records import Trial
from sweeps.storage.artifacts import ArtifactStore
from sweeps.storage.errors import StorageError
from sweeps.storage.folders import at
from sweeps.storage.leases import EXPIRY, holder_of
from sweeps.storage.local import ROOM
from sweeps.storage.record_log import RecordWriter, read_folder, read_trials
from tests.disks import fill, lock
from tests.faults.feeding import Feed
from tests.sweeps.artifact_maker import RECIPE, Maker, same
from tests.sweeps.conftest import Done
from tests.sweeps.left_lease import leave
from tests.sweeps.tiny import bare_trial, compacted, lines, record, science, write_config


def trial(number: int, **changes: Any) -> Trial:
    return bare_trial(number, **{"finished_at": 0.0, "corrupted_value": number} | changes)


@pytest.fixture
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Driver, "_analyse", lambda self: 0)


# a full disk


def test_records_up_to_the_last_byte_are_kept_and_the_same_writer_goes_on(small_disk: Path) -> None:
    ballast, writer, written = fill(small_disk, leave=40_000), RecordWriter(small_disk, "a"), 0
    while shutil.disk_usage(small_disk).free or written < 3:
        writer.append(trial(written, model="x" * 3000))
        written += 1
    with pytest.raises(StorageError, match="No space left on device; free some space there and run the same") as failed:
        writer.append(trial(written, model="x" * 5000))  # more than is left in the last page
    assert str(small_disk / "records" / "a") in str(failed.value)
    assert [t.corrupted_value for t in read_folder(small_disk, "a")] == list(range(written))
    ballast.unlink()
    for number in range(written, written + 3):  # the torn line must not swallow the next one
        writer.append(trial(number))
    assert [t.corrupted_value for t in read_folder(small_disk, "a")] == list(range(written + 3))


def test_no_work_begins_whose_result_would_not_fit(small_disk: Path) -> None:
    at(small_disk).check_room()
    fill(small_disk, leave=ROOM // 2)
    with pytest.raises(StorageError, match="disk cannot be written: No space left on device; free some space"):
        at(small_disk).check_room()


def test_files_in_the_way_of_a_full_disk_stay_whole(small_disk: Path, done: Done) -> None:
    at(small_disk / "sweep.json").write(b"before")
    record(small_disk, done.trials)
    table = compacted(small_disk).read_bytes()
    make, store = Maker(), ArtifactStore(small_disk / "store")
    store.get("model", RECIPE, make)
    fill(small_disk)
    for write in (
        lambda: at(small_disk / "sweep.json").write(b"x" * 5000),
        lambda: compacted(small_disk),
        lambda: store.get("model", RECIPE | {"lr": 9}, make),
    ):
        with pytest.raises(StorageError, match="No space left on device; free some space there"):
            write()
    assert (small_disk / "sweep.json").read_bytes() == b"before"
    assert (small_disk / "records.parquet").read_bytes() == table
    assert same(store.get("model", RECIPE, make), make())
    assert sorted(path.name for path in small_disk.iterdir()) == [
        "ballast", "records", "records.parquet", "store", "sweep.json"
    ]  # fmt: skip


@pytest.mark.usefixtures("no_report")
def test_a_sweep_whose_disk_fills_up_says_so_and_completes_later(
    small_disk: Path, done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    feed: Feed,
) -> None:  # fmt: skip
    arguments = ["--config", str(write_config(tmp_path)), "--out", str(small_disk), "--inline", "--no-tracking"]
    append, left = RecordWriter.append, itertools.count(-5)

    def filling(self: RecordWriter, trial: Trial) -> None:
        if next(left) == 0:
            fill(small_disk)
        append(self, trial)

    with monkeypatch.context() as patch:
        patch.setattr(RecordWriter, "append", filling)
        assert main(arguments) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(f"error: {small_disk}")
    assert said[-1].endswith(
        "No space left on device; free some space there and run the same command again: finished trials are kept"
    )
    assert not any("Traceback" in line for line in said)
    there = lines(small_disk / "tiny")
    assert len(read_trials(small_disk / "tiny")) >= 5
    assert next(left) <= 3  # tasks that came later did not even begin
    (small_disk / "ballast").unlink()
    assert main(arguments) == 0
    assert science(read_trials(small_disk / "tiny")) == science(done.trials)
    assert set(there) <= set(lines(small_disk / "tiny"))
    assert len(lines(small_disk / "tiny")) <= len(done.trials) + 1  # at most the one line that was cut
    feed("disk full", small_disk / "tiny", done.trials)


# a read-only artifact store


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("lacking", [0, 3])
def test_a_read_only_store_is_used_and_what_it_lacks_is_made(
    read_only: Path, done: Done, tmp_path: Path, lacking: int, capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, feed: Feed,
) -> None:  # fmt: skip
    shutil.copytree(done.out / "store", read_only, dirs_exist_ok=True)
    for folder in sorted(read_only.glob("model/*"))[:lacking]:
        shutil.rmtree(folder)
    lock(read_only)
    made, keep = [], ArtifactStore._keep
    monkeypatch.setattr(ArtifactStore, "_keep", lambda *arguments: made.append(1) or keep(*arguments))
    arguments = ["--config", str(write_config(tmp_path)), "--out", str(tmp_path), "--inline", "--no-tracking"]
    with caplog.at_level(logging.WARNING):
        assert main([*arguments, "--store", str(read_only)]) == 0
    assert science(read_trials(tmp_path / "tiny")) == science(done.trials)
    assert len(made) == lacking  # each once
    assert f"warning: {read_only} can only be read" in capsys.readouterr().err
    assert len([r for r in caplog.records if "cannot be written: what it lacks" in r.message]) == (lacking > 0)
    feed("artifact store read-only", tmp_path / "tiny", done.trials)


def test_a_damaged_artifact_in_a_read_only_store_is_made_again(
    read_only: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make = Maker()
    ArtifactStore(read_only).get("model", RECIPE, make)
    (tensors,) = read_only.rglob("tensors.safetensors")
    tensors.write_bytes(tensors.read_bytes()[:-1])
    lock(read_only)
    store = ArtifactStore(read_only)
    for _ in range(2):
        assert same(store.get("model", RECIPE, make), Maker()())
    assert make.calls == 2


def test_a_read_only_store_that_lacks_a_whole_folder_is_as_good(read_only: Path) -> None:
    make = Maker()
    ArtifactStore(read_only).get("model", RECIPE, make)
    lock(read_only)
    store = ArtifactStore(read_only)
    for _ in range(2):
        assert same(store.get("poison", RECIPE, make), make())
    assert make.calls == 4  # with those of this test


def test_a_lease_in_a_read_only_folder_can_be_looked_at(read_only: Path) -> None:
    leave(read_only / ".lock", machine="elsewhere", seconds_ago=70)
    leave(read_only / ".alive", machine="elsewhere", host="node7")
    lock(read_only)
    assert holder_of(read_only / ".lock") is None
    found = holder_of(read_only / ".alive")
    assert found is not None and found.host == "node7"


def test_a_store_that_is_neither_there_nor_can_be_made(
    read_only: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock(read_only)
    arguments = ["--config", str(write_config(tmp_path)), "--out", str(tmp_path), "--inline", "--no-tracking"]
    assert main([*arguments, "--store", str(read_only / "none")]) == 2
    assert f"error: --store {read_only / 'none'} cannot be written: " in capsys.readouterr().err


# damage


@pytest.mark.usefixtures("no_report")
@pytest.mark.parametrize("kind", ["model", "poison"])
def test_artifacts_with_one_flipped_byte_change_no_result(
    done: Done, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture, feed: Feed
) -> None:
    shutil.copytree(done.out / "store", tmp_path / "store")
    damaged = sorted((tmp_path / "store" / kind).glob("*/tensors.safetensors"))
    for number, path in enumerate(damaged):
        data = bytearray(path.read_bytes())
        data[(len(data) - 1) * number // max(1, len(damaged) - 1)] ^= 1  # headers and weights alike
        path.write_bytes(data)
    arguments = ["--config", str(write_config(tmp_path)), "--out", str(tmp_path), "--inline", "--no-tracking"]
    with caplog.at_level(logging.WARNING):
        assert main(arguments) == 0
    assert science(read_trials(tmp_path / "tiny")) == science(done.trials)
    assert len([r for r in caplog.records if "is damaged (checksum differs)" in r.message]) == len(damaged) > 1
    feed("artifact with a flipped byte", tmp_path / "tiny", done.trials, tried=len(damaged))


def test_a_line_that_was_cut_in_the_middle_of_a_file_costs_that_trial_only(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, "a")
    for number in range(3):
        writer.append(trial(number))
    (part,) = tmp_path.rglob("*.jsonl")
    first, second, third = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(first + second[: len(second) // 2] + b"\n" + third)
    assert [t.corrupted_value for t in read_folder(tmp_path, "a")] == [0, 2]
    RecordWriter(tmp_path, "a").append(trial(1))
    assert [t.corrupted_value for t in read_folder(tmp_path, "a")] == [0, 2, 1]


# a clock that goes backwards


@pytest.mark.usefixtures("no_report")
def test_a_clock_that_goes_backwards_changes_no_result_and_no_order(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, feed: Feed
) -> None:
    clock = itertools.count(2_000_000_000, -3600)
    monkeypatch.setattr("sweeps.trials.trial.time.time", lambda: float(next(clock)))
    arguments = ["--config", str(write_config(tmp_path)), "--out", str(tmp_path), "--inline", "--no-tracking"]
    append, left = RecordWriter.append, itertools.count(-6)

    def stopping(self: RecordWriter, trial: Trial) -> None:
        append(self, trial)
        if next(left) == 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(RecordWriter, "append", stopping)
    assert [main(arguments), main(arguments)] == [130, 0]
    found = read_trials(tmp_path / "tiny")
    assert science(found) == science(done.trials)
    assert [trial.trial_id for trial in found] == [trial.trial_id for trial in done.trials]
    studies: dict[str, list[float]] = {}
    for one in found:
        studies.setdefault(one.study, []).append(one.finished_at)
    assert all(times == sorted(times, reverse=True) for times in studies.values())  # by time it would be the reverse
    record(tmp_path / "undisturbed", done.trials)
    tables = [pd.read_parquet(compacted(tmp_path / name)) for name in ("tiny", "undisturbed")]
    assert tables[0]["trial_id"].tolist() == tables[1]["trial_id"].tolist()
    feed("clock set back", tmp_path / "tiny", done.trials)


# two drivers


@pytest.mark.usefixtures("no_report")
def test_of_two_drivers_on_one_sweep_the_second_is_refused_while_the_first_lives(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], feed: Feed
) -> None:
    arguments = ["--config", str(write_config(tmp_path)), "--out", str(tmp_path), "--inline", "--no-tracking"]
    append, go_on = RecordWriter.append, tmp_path / "go on"
    first = os.fork()
    if not first:

        def slowly(self: RecordWriter, trial: Trial) -> None:
            append(self, trial)
            while not go_on.exists():
                time.sleep(0.01)

        RecordWriter.append = slowly  # type: ignore[method-assign]
        os._exit(main(arguments))
    end = time.monotonic() + 60
    while not lines(tmp_path / "tiny") and time.monotonic() < end:
        time.sleep(0.01)
    before = sorted(path for path in tmp_path.rglob("*") if ".tiny" not in path.name)
    began = time.monotonic()
    assert main(arguments) == 2
    assert time.monotonic() - began < EXPIRY / 2  # at once, on a machine as busy as it may be
    assert (
        f"another process is running this sweep in {tmp_path / 'tiny'}: process {first} on " in capsys.readouterr().err
    )
    assert sorted(path for path in tmp_path.rglob("*") if ".tiny" not in path.name) == before
    go_on.touch()
    assert os.waitpid(first, 0)[1] == 0
    assert science(read_trials(tmp_path / "tiny")) == science(done.trials)
    assert len(lines(tmp_path / "tiny")) == len(done.trials)
    assert main(arguments) == 0  # the first has left nothing in the way
    feed("two drivers at once", tmp_path / "tiny", done.trials)
