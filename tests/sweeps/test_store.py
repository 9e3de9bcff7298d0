"""The record store: what is recorded stays, once."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.schema.lines import to_line
from sweeps.schema.records import Trial
from sweeps.storage.base import Folder
from sweeps.storage.record_log import (
    Counted,
    Parts,
    RecordWriter,
    count_failed,
    count_trials,
    first_without,
    folder_parts,
    iter_trials,
    parse,
    read_folder,
    read_parts,
    read_trials,
)
from tests.sweeps.conftest import Done
from tests.sweeps.tiny import bare_trial, compacted


def trial(number: int, **changes: Any) -> Trial:
    return bare_trial(number, **{"finished_at": 100.0 + number, "corrupted_value": number} | changes)


def parts(sweep: Path) -> list[Path]:
    return sorted(sweep.glob("records/*/*.jsonl"))


def test_what_was_appended_is_read_in_that_order_whatever_the_clock_says(tmp_path: Path) -> None:
    one, other = RecordWriter(tmp_path, "a"), RecordWriter(tmp_path, "a")
    for number in (0, 1, 2, 3):
        (one if number % 2 else other).append(trial(number, finished_at=100.0 - number))
    RecordWriter(tmp_path, "b").append(trial(4, finished_at=0.0))
    assert len(parts(tmp_path)) == 3
    assert [t.corrupted_value for t in read_folder(tmp_path, "a")] == [0, 1, 2, 3]
    assert [t.corrupted_value for t in read_trials(tmp_path)] == [0, 1, 2, 3, 4]


def test_a_later_writer_comes_after_all_lines_that_it_knew_torn_ones_included(tmp_path: Path) -> None:
    RecordWriter(tmp_path, "a").append(trial(0))
    (part,) = parts(tmp_path)
    part.write_bytes(part.read_bytes() + b'{"half')
    for number in range(1, 12):
        RecordWriter(tmp_path, "a").append(trial(number, finished_at=0.0))
    assert [int(path.name[:8]) for path in parts(tmp_path)] == [0, *range(2, 13)]
    assert [t.corrupted_value for t in read_folder(tmp_path, "a")] == list(range(12))


def test_files_named_without_a_start_are_read_as_first_ones(tmp_path: Path) -> None:
    folder = tmp_path / "records" / "a"
    folder.mkdir(parents=True)
    (folder / f"{'0' * 32}.jsonl").write_bytes(to_line(trial(0)))
    RecordWriter(tmp_path, "a").append(trial(1, finished_at=0.0))
    assert [t.corrupted_value for t in read_folder(tmp_path, "a")] == [0, 1]


@pytest.mark.parametrize("name", ["..", ".", "", "../x", "a/b", "a\\b", "/etc"])
def test_no_cell_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is no name for a folder"):
        RecordWriter(tmp_path, name)
    with pytest.raises(ValueError, match="is no name for a folder"):
        read_folder(tmp_path, name)


def test_nothing_recorded_yet(tmp_path: Path) -> None:
    RecordWriter(tmp_path, "a")
    assert read_folder(tmp_path, "a") == read_trials(tmp_path) == []
    assert count_trials(tmp_path, {}) == 0


def test_every_prefix_of_a_file_reads_as_the_trials_that_it_holds_whole(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, "a")
    for number in range(3):
        writer.append(trial(number, model="é\n\u2028"))
    (part,) = parts(tmp_path)
    whole = part.read_bytes()
    for end in range(len(whole) + 1):
        part.write_bytes(whole[:end])
        finished = whole[: end + 1].count(b"\n") if end < len(whole) else 3  # the line break itself may be missing
        assert [t.corrupted_value for t in read_folder(tmp_path, "a")] == list(range(finished))


@pytest.mark.parametrize(
    "torn", [b"7", b"null", b'{"half":1}', b"\x00" * 50, b"\xff\xfe\xe9", b'{"trial_id": "t7", "x', b"\n\n", b'"text']
)
def test_a_torn_end_is_ignored(tmp_path: Path, torn: bytes) -> None:
    RecordWriter(tmp_path, "a").append(trial(0))
    (part,) = parts(tmp_path)
    part.write_bytes(part.read_bytes() + torn)
    RecordWriter(tmp_path, "a").append(trial(1))
    assert [t.corrupted_value for t in read_folder(tmp_path, "a")] == [0, 1]


def test_of_a_doubled_trial_the_first_written_counts(tmp_path: Path) -> None:
    RecordWriter(tmp_path, "a").append(trial(0, finished_at=300.0, model="first"))
    for _ in range(20):  # whatever the random names of the files
        RecordWriter(tmp_path, "a").append(trial(0, finished_at=100.0, model="late"))
    assert [t.model for t in read_folder(tmp_path, "a")] == ["first"]


def test_numbers_come_back_exactly_and_nan_is_refused(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, "a")
    metrics = {"a": 0.1 + 0.2, "b": 1e-300, "c": 2**62 + 1, "d": None}
    writer.append(trial(0, rungs=[{"budget": 0.1, "status": "ok", "metrics": metrics}]))
    assert read_folder(tmp_path, "a")[0].rungs[0].metrics == metrics
    with pytest.raises(ValueError):
        writer.append(trial(1, corrupted_value=float("nan")))
    assert len(read_folder(tmp_path, "a")) == 1


def _write(sweep: Path, start: int) -> None:
    writer = RecordWriter(sweep, "a")
    for number in range(start, start + 30):
        writer.append(trial(number, model="x" * 5000))


def test_two_processes_write_to_one_cell(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=_write, args=(tmp_path, start)) for start in (0, 15)]
    for process in both:
        process.start()
    for process in both:
        process.join(30)
    assert len(parts(tmp_path)) == 2
    assert sorted(t.corrupted_value for t in read_folder(tmp_path, "a")) == list(range(45))


def test_counting_reads_only_what_is_new(tmp_path: Path) -> None:
    known: dict[str, Counted] = {}
    writer = RecordWriter(tmp_path, "a")
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
    RecordWriter(tmp_path, "b").append(trial(1))
    assert count_trials(tmp_path, known) == 3
    assert known[f"a/{part.name}"].size > size


def test_failures_are_counted_by_a_mark_that_no_other_text_can_hold(tmp_path: Path) -> None:
    known: dict[str, Counted] = {}
    writer = RecordWriter(tmp_path, "a")
    for error in (None, "Traceback", None, 'said ,"error":"'):
        writer.append(trial(0, model=',"error":"', error=error))
    assert (count_trials(tmp_path, known), count_failed(known)) == (4, 2)
    (part,) = parts(tmp_path)
    with open(part, "ab") as file:
        file.write(b'{"trial_id":"t9","err')
    assert (count_trials(tmp_path, known), count_failed(known)) == (4, 2)
    with open(part, "ab") as file:
        file.write(b'or":"Traceback"}\n')
    assert (count_trials(tmp_path, known), count_failed(known)) == (5, 3)


def test_the_part_files_are_plain_json_lines(done: Done) -> None:
    for part in parts(done.dir):
        for line in part.read_text().splitlines():
            assert json.loads(line)["study"] == part.parent.name


def test_trials_are_read_one_cell_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "bca":
        for number in range(3):
            RecordWriter(tmp_path, name).append(trial(number, trial_id=f"{name}{number}"))
    held: list[int] = []

    def watched(records: Folder, own: Parts) -> list[Trial]:
        held.append(len(own))
        return read_parts(records, own)

    monkeypatch.setattr("sweeps.storage.record_log.read_parts", watched)
    found = iter_trials(tmp_path)
    assert (next(found).trial_id, held) == ("a0", [3])
    assert [t.trial_id for t in found] == ["a1", "a2", "b0", "b1", "b2", "c0", "c1", "c2"]
    assert held == [3, 3, 3]


def test_a_trial_in_two_cells_is_read_once(tmp_path: Path) -> None:
    for name in ("b", "a", "a-b"):
        RecordWriter(tmp_path, name).append(trial(0, model=name))
    assert list(folder_parts(tmp_path)) == ["a", "a-b", "b"]
    assert [t.model for t in iter_trials(tmp_path)] == ["a"]


def test_what_is_recorded_after_a_look_is_not_in_it(tmp_path: Path) -> None:
    writer = RecordWriter(tmp_path, "a")
    writer.append(trial(0))
    cells = folder_parts(tmp_path)
    writer.append(trial(1))
    RecordWriter(tmp_path, "b").append(trial(2))
    assert [t.corrupted_value for own in cells.values() for t in read_parts(tmp_path / "records", own)] == [0]


def test_an_error_that_is_no_unicode_reaches_the_table(tmp_path: Path) -> None:
    """A traceback may name a file whose name is no UTF-8."""
    RecordWriter(tmp_path, "a").append(trial(0, error="caf\udce9.py"))
    assert read_folder(tmp_path, "a")[0].error == r"caf\udce9.py"
    assert list(pd.read_parquet(compacted(tmp_path))["error"]) == [r"caf\udce9.py"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
)
def test_the_fast_reader_of_json_reads_as_the_standard_one(value: Any) -> None:
    text = json.dumps(value)
    assert repr(parse(text.encode())) == repr(json.loads(text))


def test_the_first_record_without_a_word_is_found(tmp_path: Path) -> None:
    path = tmp_path / "part.jsonl"
    path.write_bytes(b"")
    assert first_without(path, {"x"}) is None
    path.write_bytes(b'{"trial_id": "t7", "x\n7\n' + to_line(trial(1, group_id="x")) + to_line(trial(2)))
    assert first_without(path, {"x", "y"}) == 4
    assert first_without(path, {"y"}) == 3
