"""Reading folders: whole, unfinished, damaged, old."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from analysis.reading.load import load_sweep
from analysis.reading.points import parse_budgets, references
from analysis.results.analyse import analyse
from tests.analysis.maker import INFO, Maker, rows, write_sweep
from unlearn_core.checks import InputError


def test_part_files_give_the_same_rows_as_the_table(tmp_path: Path, known_folder: Path) -> None:
    table = load_sweep(known_folder).rows
    parts = load_sweep(write_sweep(tmp_path / "parts", parts=True)).rows
    texts = dict.fromkeys(table.select_dtypes("category").columns, "str")  # repeated ones are kept once
    pd.testing.assert_frame_equal(parts.astype(texts), table.astype(texts), check_dtype=False)


def test_torn_lines_and_second_records_are_dropped(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "torn", parts=True)
    part = folder / "records" / "cell" / "a.jsonl"
    first = json.loads(part.read_text().splitlines()[0])
    again = json.dumps(first | {"dataset": "second record"})
    (folder / "records" / "cell" / "b.jsonl").write_text(again + "\n" + again[:50])
    sweep = load_sweep(folder)
    assert "second record" not in set(sweep.rows["dataset"])
    assert any("1 torn" in note for note in sweep.notes)


@pytest.mark.slow
@pytest.mark.parametrize("content", [None, "{not json", "[]", "{}"])
def test_a_missing_or_damaged_sweep_json_is_said(tmp_path: Path, content: str | None) -> None:
    folder = write_sweep(tmp_path / "bare")
    (folder / "sweep.json").unlink()
    if content is not None:
        (folder / "sweep.json").write_text(content)
    results = analyse(load_sweep(folder))
    assert any("sweep.json" in note for note in results.notes)
    assert results.tolerance == 0.02
    assert results.sweep.name == "bare"


def test_odd_values_in_sweep_json_do_no_harm(tmp_path: Path) -> None:
    info = dict.fromkeys(INFO, "surprise") | {"spec": {"methods": {"a": 1}, "attacks": "x", "seeds": [1]}}
    assert analyse(load_sweep(write_sweep(tmp_path / "odd", info=info))).attacks == ["patch", "noise", "flip"]


def test_old_columns_are_said_and_filled(tmp_path: Path) -> None:
    folder = write_sweep(tmp_path / "old")
    table = pd.read_parquet(folder / "records.parquet").drop(columns=["peak_memory_bytes", "oracle_flops"])
    table.to_parquet(folder / "records.parquet")
    sweep = load_sweep(folder)
    assert any("peak_memory_bytes" in note for note in sweep.notes)
    assert sweep.rows["peak_memory_bytes"].isna().all()


@pytest.mark.parametrize("rate", [1.0, None])
def test_discovery_rates_become_attacks_of_their_own(tmp_path: Path, rate: float | None) -> None:
    trials = list(Maker(attacks=["patch"], dead=[]).trials())
    half = [
        t | {"discovery_rate": 0.5, "trial_id": "half" + t["trial_id"]} for t in trials if t["stage"] != "reference"
    ]
    trials = [t | {"discovery_rate": rate} if t["stage"] == "reference" else t for t in trials] + half
    folder = tmp_path / "rates"
    folder.mkdir()
    rows(trials).to_parquet(folder / "records.parquet")
    sweep = load_sweep(folder)
    expected = {"patch, discovery rate 1", "patch, discovery rate 0.5"}
    assert set(sweep.rows["attack"]) == expected
    told = references(sweep).groupby("attack").size().to_dict()
    own = len(references(load_sweep(write_sweep(tmp_path / "one", attacks=["patch"], dead=[]))))
    assert told == ({"patch, discovery rate 1": own} if rate else dict.fromkeys(expected, own))


@pytest.mark.parametrize("studied", [(), (1.0,), (1.0, 0.5)])
def test_references_keep_to_their_own_rate_while_other_studies_are_to_come(
    tmp_path: Path, studied: tuple[float, ...]
) -> None:
    made = list(Maker(attacks=["patch"], dead=[]).trials())
    trials = [
        t | {"discovery_rate": rate, "trial_id": f"{rate}{t['trial_id']}"}
        for rate in (1.0, 0.5, 0.1)
        for t in made
        if t["stage"] == "reference" or rate in studied
    ]
    folder = tmp_path / "rates"
    folder.mkdir()
    rows(trials).to_parquet(folder / "records.parquet")
    found = references(load_sweep(folder)).groupby("attack")["discovery_rate"].agg(set).to_dict()
    assert found == {f"patch, discovery rate {rate:g}": {rate} for rate in (1.0, 0.5, 0.1)}


def test_failed_trials_stay_visible(tmp_path: Path) -> None:
    trials = list(Maker(attacks=["patch"], dead=[]).trials())
    lost = next(t for t in trials if t["stage"] == "confirmation" and t["method"] == "winner")
    lost |= {"rungs": [], "error": "Traceback\nValueError: gone"}
    assert len(rows([lost])) == 1
    folder = tmp_path / "failed"
    folder.mkdir()
    rows(trials).to_parquet(folder / "records.parquet")
    points = analyse(load_sweep(folder)).points.set_index(["method", "budget"])
    assert (points.loc["winner", "n_failed"] == 1).all()
    assert not points.loc["winner", "eligible"].any()


@pytest.mark.parametrize(
    "text, expected", [("[0.02, 0.1]", [0.02, 0.1]), ("", []), (None, []), ("nan", []), ("3", []), ("{", [])]
)
def test_chosen_budgets(text: object, expected: list[float]) -> None:
    assert parse_budgets(text) == expected


def test_unusable_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        load_sweep(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no records"):
        load_sweep(tmp_path)
    (tmp_path / "records.parquet").write_bytes(b"not parquet")
    with pytest.raises(InputError, match="cannot be read"):
        load_sweep(tmp_path)
    pd.DataFrame({"attack": ["a"]}).to_parquet(tmp_path / "records.parquet")
    with pytest.raises(InputError, match="lack the columns method"):
        load_sweep(tmp_path)
