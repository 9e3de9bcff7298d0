"""`records.parquet`: every row, in order, in its type, whatever the number of trials."""

from __future__ import annotations

import os
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from sweeps.schema.records import COLUMNS, RUNG_COLUMNS, TRIAL_COLUMNS, Rung, Trial, flatten
from sweeps.storage.record_log import RecordWriter
from sweeps.storage.table import compact
from tests.sweeps.conftest import Done
from tests.sweeps.tiny import compacted, record


def whole_table(trials: list[Trial]) -> pd.DataFrame:
    """The same table by an independent way: all rows in memory, sorted by pandas."""
    ordered = sorted(trials, key=lambda trial: (trial.stage, trial.trial_id))
    rows = [row for trial in ordered for row in flatten(trial)]
    columns = dict.fromkeys([*TRIAL_COLUMNS, *RUNG_COLUMNS]) | dict.fromkeys(name for row in rows for name in row)
    frame = pd.DataFrame(rows, columns=list(columns))
    keys = ["stage", "study", "proposal", "seed", "trial_id", "budget"]
    return frame.sort_values(keys, ignore_index=True)


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert list(found) == list(expected)
    for name in found:
        empty = found[name].isna()
        assert empty.equals(expected[name].isna()), name
        assert found[name][~empty].tolist() == expected[name][~empty].tolist(), name


def test_the_table_has_all_rows_in_order(done: Done, tmp_path: Path) -> None:
    record(tmp_path, done.trials)
    same(pd.read_parquet(compacted(tmp_path)), whole_table(done.trials))


@pytest.mark.parametrize("rows_at_once", [1, 7, 10_000])
def test_pieces_do_not_show(done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_at_once: int) -> None:
    monkeypatch.setattr("sweeps.storage.table.ROWS_AT_ONCE", rows_at_once)
    made = random.Random(rows_at_once)
    trials = [_varied(trial, made) for trial in done.trials]
    record(tmp_path, trials)
    table = compact(tmp_path)
    assert table is not None
    assert (table.trials, table.failed) == (len(trials), sum(trial.error is not None for trial in trials))
    same(pd.read_parquet(table.path), whole_table(trials))


def _varied(trial: Trial, made: random.Random) -> Trial:
    """The trial as it might be: failed, diverged, or with metrics that others do not have, in another order."""
    if made.random() < 0.2:
        return replace(trial, rungs=(), error="Traceback")
    return replace(trial, rungs=tuple(_with_other_metrics(rung, made) for rung in trial.rungs))


def _with_other_metrics(rung: Rung, made: random.Random) -> Rung:
    names = list(rung.metrics)
    made.shuffle(names)
    own = {name: rung.metrics[name] for name in names[: made.randint(0, len(names))]}
    return replace(rung, metrics=own | {f"own_{made.randint(0, 5)}": 2**60 + 1})


def test_compaction_is_a_pure_function_of_the_trials(done: Done, tmp_path: Path) -> None:
    record(tmp_path / "one", done.trials)
    record(tmp_path / "other", done.trials[::-1])
    first = compacted(tmp_path / "one").read_bytes()
    os.utime(tmp_path / "one" / "records.parquet", (0, 0))
    assert compacted(tmp_path / "one").read_bytes() == compacted(tmp_path / "other").read_bytes() == first
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["records", "records.parquet"]


def test_no_trials_make_no_table(tmp_path: Path) -> None:
    assert compact(tmp_path) is None
    RecordWriter(tmp_path, "a")
    assert compact(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_trial_that_two_cells_hold_has_its_rows_once(done: Done, tmp_path: Path) -> None:
    record(tmp_path, done.trials)
    before = pd.read_parquet(compacted(tmp_path))
    for trial in done.trials[::2]:
        RecordWriter(tmp_path, "zz--copied").append(replace(trial, primary_metric="late"))
    table = compact(tmp_path)
    assert table is not None
    assert table.trials == len(done.trials)
    pd.testing.assert_frame_equal(pd.read_parquet(table.path), before)


def test_a_trial_recorded_during_compaction_waits_for_the_next(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path, done.trials[:-1])
    first, *rest = done.trials[-1].rungs
    changed = replace(first, metrics={**first.metrics, "unheard_of": 1.0})
    late = replace(done.trials[-1], rungs=(changed, *rest))
    from sweeps.storage import table

    def looked(*arguments: Any) -> Any:
        found = survey(*arguments)
        RecordWriter(tmp_path, late.study).append(late)
        return found

    survey = table.survey
    monkeypatch.setattr(table, "survey", looked)
    before = pd.read_parquet(compacted(tmp_path))
    assert late.trial_id not in set(before["trial_id"])
    monkeypatch.undo()
    again = pd.read_parquet(compacted(tmp_path))
    assert again.loc[again["trial_id"] == late.trial_id, "unheard_of"].max() == 1.0


def test_a_compaction_that_fails_leaves_the_old_table(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record(tmp_path, done.trials)
    before = compacted(tmp_path).read_bytes()

    def full(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("pyarrow.parquet.ParquetWriter.write_table", full)
    with pytest.raises(OSError, match="disk full"):
        compact(tmp_path)
    assert (tmp_path / "records.parquet").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["records", "records.parquet"]


def kinds(frame: pd.DataFrame) -> dict[str, str]:
    return {name: frame[name].dtype.kind for name in frame}


def test_the_table_has_every_column_in_its_type(done: Done, tmp_path: Path) -> None:
    record(tmp_path, done.trials)
    frame = pd.read_parquet(compacted(tmp_path))
    assert list(frame)[: len(TRIAL_COLUMNS) + len(RUNG_COLUMNS)] == [*TRIAL_COLUMNS, *RUNG_COLUMNS]
    assert len(frame) == sum(len(t.rungs) for t in done.trials)
    found = kinds(frame)
    assert {found[name] for name, column in COLUMNS.items() if column.kind is str} == {"O"}
    assert (found["attack_took"], found["seed"], found["schema"]) == ("b", "i", "i")
    assert {found[name] for name in found if name not in COLUMNS or COLUMNS[name].kind in (int, float)} == {"f", "i"}
    assert (found["error"], found["peak_memory_bytes"], found["primary_z"]) == ("O", "f", "f")  # without any value
    assert set(frame["unlearning_seed"]) == {t.unlearning_seed for t in done.trials}  # 63 bits, to the last


def test_columns_without_values_keep_their_types(done: Done, tmp_path: Path) -> None:
    record(tmp_path / "one", done.trials)
    frame = pd.read_parquet(compacted(tmp_path / "one"))
    failed = [replace(t, rungs=(), error="Traceback", corrupted_value=None) for t in done.trials]
    record(tmp_path / "other", failed)
    bare = pd.read_parquet(compacted(tmp_path / "other"))
    assert set(bare["status"]) == {"failed"}
    same_kind = {name: kind for name, kind in kinds(frame).items() if name in bare and kind in "bfO"}
    assert {name: kinds(bare)[name] for name in same_kind} == same_kind
