"""The record store: what is recorded stays, once."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sweeps.records import RUNG_COLUMNS, TEXTS, TRIAL_COLUMNS
from sweeps.store import FAILED, CellWriter, compact, count_trials, read_cell, read_trials
from tests.sweeps.conftest import Done


def trial(number: int, **changes: Any) -> dict[str, Any]:
    return {"trial_id": f"t{number}", "finished_at": 100.0 + number, "value": number} | changes


def parts(sweep: Path) -> list[Path]:
    return sorted(sweep.glob("records/*/*.jsonl"))


def test_what_was_appended_is_read_in_that_order_whatever_the_clock_says(tmp_path: Path) -> None:
    one, other = CellWriter(tmp_path, "a"), CellWriter(tmp_path, "a")
    for number in (0, 1, 2, 3):
        (one if number % 2 else other).append(trial(number, finished_at=100.0 - number))
    CellWriter(tmp_path, "b").append(trial(4, finished_at=0.0))
    assert len(parts(tmp_path)) == 3
    assert [t["value"] for t in read_cell(tmp_path, "a")] == [0, 1, 2, 3]
    assert [t["value"] for t in read_trials(tmp_path)] == [0, 1, 2, 3, 4]


def test_a_later_writer_comes_after_all_lines_that_it_knew_torn_ones_included(tmp_path: Path) -> None:
    CellWriter(tmp_path, "a").append(trial(0))
    (part,) = parts(tmp_path)
    part.write_bytes(part.read_bytes() + b'{"half')
    for number in range(1, 12):
        CellWriter(tmp_path, "a").append(trial(number, finished_at=0.0))
    assert [int(path.name[:8]) for path in parts(tmp_path)] == [0, *range(2, 13)]
    assert [t["value"] for t in read_cell(tmp_path, "a")] == list(range(12))


def test_files_named_without_a_start_are_read_as_first_ones(tmp_path: Path) -> None:
    folder = tmp_path / "records" / "a"
    folder.mkdir(parents=True)
    (folder / f"{'0' * 32}.jsonl").write_text(json.dumps(trial(0)) + "\n")
    CellWriter(tmp_path, "a").append(trial(1, finished_at=0.0))
    assert [t["value"] for t in read_cell(tmp_path, "a")] == [0, 1]


@pytest.mark.parametrize("name", ["..", ".", "", "../x", "a/b", "a\\b", "/etc"])
def test_no_cell_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no name for a folder"):
        CellWriter(tmp_path, name)
    with pytest.raises(ValueError, match="is no name for a folder"):
        read_cell(tmp_path, name)


def test_nothing_recorded_yet(tmp_path: Path) -> None:
    CellWriter(tmp_path, "a")
    assert read_cell(tmp_path, "a") == read_trials(tmp_path) == []
    assert count_trials(tmp_path, {}) == 0


def test_every_prefix_of_a_file_reads_as_the_trials_that_it_holds_whole(tmp_path: Path) -> None:
    writer = CellWriter(tmp_path, "a")
    for number in range(3):
        writer.append(trial(number, text="é\n\u2028"))
    (part,) = parts(tmp_path)
    whole = part.read_bytes()
    for end in range(len(whole) + 1):
        part.write_bytes(whole[:end])
        finished = whole[: end + 1].count(b"\n") if end < len(whole) else 3  # the line break itself may be missing
        assert [t["value"] for t in read_cell(tmp_path, "a")] == list(range(finished))


@pytest.mark.parametrize(
    "torn", [b"7", b"null", b'{"half":1}', b"\x00" * 50, b"\xff\xfe\xe9", b'{"trial_id": "t7", "x', b"\n\n", b'"text']
)
def test_a_torn_end_is_ignored(tmp_path: Path, torn: bytes) -> None:
    CellWriter(tmp_path, "a").append(trial(0))
    (part,) = parts(tmp_path)
    part.write_bytes(part.read_bytes() + torn)
    CellWriter(tmp_path, "a").append(trial(1))
    assert [t["value"] for t in read_cell(tmp_path, "a")] == [0, 1]


def test_of_a_doubled_trial_the_first_written_counts(tmp_path: Path) -> None:
    CellWriter(tmp_path, "a").append(trial(0, finished_at=300.0, value="first"))
    for _ in range(20):  # whatever the random names of the files
        CellWriter(tmp_path, "a").append(trial(0, finished_at=100.0, value="late"))
    assert [t["value"] for t in read_cell(tmp_path, "a")] == ["first"]


def test_numbers_come_back_exactly_and_nan_is_refused(tmp_path: Path) -> None:
    writer = CellWriter(tmp_path, "a")
    writer.append(trial(0, value=[0.1 + 0.2, 1e-300, 2**62 + 1, None]))
    assert read_cell(tmp_path, "a")[0]["value"] == [0.1 + 0.2, 1e-300, 2**62 + 1, None]
    with pytest.raises(ValueError):
        writer.append(trial(1, value=float("nan")))
    assert len(read_cell(tmp_path, "a")) == 1


def _write(sweep: Path, start: int) -> None:
    writer = CellWriter(sweep, "a")
    for number in range(start, start + 30):
        writer.append(trial(number, padding="x" * 5000))


def test_two_processes_write_to_one_cell(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_write, args=(tmp_path, start)) for start in (0, 15)]
    for process in both:
        process.start()
    for process in both:
        process.join(30)
    assert len(parts(tmp_path)) == 2
    assert sorted(t["value"] for t in read_cell(tmp_path, "a")) == list(range(45))


def test_counting_reads_only_what_is_new(tmp_path: Path) -> None:
    known: dict[Path, tuple[int, int]] = {}
    writer = CellWriter(tmp_path, "a")
    writer.append(trial(0))
    assert count_trials(tmp_path, known) == 1
    (part,) = parts(tmp_path)
    size = part.stat().st_size
    with open(part, "r+b") as file:  # what was counted is not read again
        file.write(b"\n" * 5)
    assert count_trials(tmp_path, known) == 1
    with open(part, "ab") as file:
        file.write(b'{"half')
    assert count_trials(tmp_path, known) == 1
    with open(part, "ab") as file:
        file.write(b' a line"}\n')
    assert count_trials(tmp_path, known) == 2
    CellWriter(tmp_path, "b").append(trial(1))
    assert count_trials(tmp_path, known) == 3
    assert known[part][0] > size


def test_failures_are_counted_by_a_mark_that_no_other_text_can_hold(tmp_path: Path) -> None:
    known: dict[Path, tuple[int, int]] = {}
    writer = CellWriter(tmp_path, "a")
    for error in (None, "Traceback", None, 'said ,"error":"'):
        writer.append(trial(0, text=',"error":"', error=error))
    assert count_trials(tmp_path, known, FAILED) == 2
    (part,) = parts(tmp_path)
    with open(part, "ab") as file:
        file.write(b'{"trial_id":"t9","err')
    assert count_trials(tmp_path, known, FAILED) == 2
    with open(part, "ab") as file:
        file.write(b'or":"Traceback"}\n')
    assert count_trials(tmp_path, known, FAILED) == 3


def test_compaction_is_a_pure_function_of_the_trials(done: Done, tmp_path: Path) -> None:
    first = compact(tmp_path, done.trials).read_bytes()
    os.utime(tmp_path / "records.parquet", (0, 0))
    assert compact(tmp_path, done.trials[::-1]).read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["records.parquet"]


def test_a_compaction_that_fails_leaves_the_old_table(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = compact(tmp_path, done.trials).read_bytes()

    def half(frame: pd.DataFrame, path: Path, **_: Any) -> None:
        path.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(pd.DataFrame, "to_parquet", half)
    with pytest.raises(OSError, match="disk full"):
        compact(tmp_path, done.trials)
    assert (tmp_path / "records.parquet").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["records.parquet"]


def kinds(frame: pd.DataFrame) -> dict[str, str]:
    return {name: frame[name].dtype.kind for name in frame}


def test_the_table_has_every_column_in_its_type(done: Done, tmp_path: Path) -> None:
    frame = pd.read_parquet(compact(tmp_path, done.trials))
    assert list(frame)[: len(TRIAL_COLUMNS) + len(RUNG_COLUMNS)] == [*TRIAL_COLUMNS, *RUNG_COLUMNS]
    assert len(frame) == sum(len(t["rungs"]) for t in done.trials)
    found = kinds(frame)
    assert {found[name] for name in TEXTS} == {"O"}
    assert (found["attack_took"], found["seed"], found["schema"]) == ("b", "i", "i")
    assert {found[name] for name in found if name not in (*TEXTS, "attack_took")} == {"f", "i"}
    assert (found["error"], found["peak_memory_bytes"], found["primary_z"]) == ("O", "f", "f")  # without any value
    assert set(frame["unlearning_seed"]) == {t["unlearning_seed"] for t in done.trials}  # 63 bits, to the last


def test_columns_without_values_keep_their_types(done: Done, tmp_path: Path) -> None:
    frame = pd.read_parquet(compact(tmp_path, done.trials))
    failed = [t | {"rungs": [], "error": "Traceback", "corrupted_value": None} for t in done.trials]
    bare = pd.read_parquet(compact(tmp_path, failed))
    assert set(bare["status"]) == {"failed"}
    same = {name: kind for name, kind in kinds(frame).items() if name in bare and kind in "bfO"}
    assert {name: kinds(bare)[name] for name in same} == same


def test_the_part_files_are_plain_json_lines(done: Done) -> None:
    for part in parts(done.dir):
        for line in part.read_text().splitlines():
            assert json.loads(line)["study"] == part.parent.name
