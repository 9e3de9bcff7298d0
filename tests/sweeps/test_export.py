"""What an archive holds when folders are links, read-only or full, and that no cell of a table is a formula."""

from __future__ import annotations

import csv
import io
import json
import os
import tarfile
from pathlib import Path

import pandas as pd
import pytest

from analysis.tables.report_tables import write_csv
from sweeps.__main__ import main
from tests.disks import fill, lock
from tests.sweeps.conftest import Done
from tests.sweeps.tiny import record, tiny
from unlearn_core.host.cells import inert


def make_sweep(folder: Path, done: Done) -> Path:
    path = folder / "tiny"
    path.mkdir()
    (path / "sweep.json").write_text(json.dumps({"spec": tiny().to_dict()}))
    record(path, done.trials)
    (path / "report").mkdir()
    (path / "report" / "index.html").write_text("page")
    return path


@pytest.fixture
def folder(tmp_path: Path, done: Done) -> Path:
    return make_sweep(tmp_path, done)


def files_in(archive: Path) -> dict[str, bytes]:
    """All of them; fails on anything that is neither file nor folder."""
    with tarfile.open(archive) as opened:
        assert all(member.isfile() or member.isdir() for member in opened)
        return {m.name: opened.extractfile(m).read() for m in opened if m.isfile()}  # type: ignore[union-attr]


def test_a_report_that_is_a_link_is_packed_and_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = folder.parent / "elsewhere"
    (folder / "report").rename(elsewhere)
    (folder / "report").symlink_to(elsewhere)
    assert main(["export", str(folder)]) == 0
    assert files_in(folder.parent / "tiny.tar.gz")["tiny/report/index.html"] == b"page"
    assert f"warning: {folder / 'report'} leads to {elsewhere}\n" in capsys.readouterr().err


def test_a_link_that_leads_nowhere_is_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "report").rename(folder / "other")
    (folder / "report").symlink_to("gone")
    assert main(["export", str(folder)]) == 0
    assert files_in(folder.parent / "tiny.tar.gz").keys() == {"tiny/sweep.json", "tiny/records.parquet"}
    assert "report leads to " in (said := capsys.readouterr().err) and ", which is left out" in said


def test_links_inside_a_report_never_lead_out_of_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = folder / "report"
    (folder.parent / "secret").write_text("key")
    (folder.parent / "secrets").mkdir()
    (folder.parent / "secrets" / "key").write_text("key")
    for name, target in {"a": "../../secret", "b": "../../secrets", "c": "gone", "d": "index.html", "e": "."}.items():
        (report / name).symlink_to(target)
    os.mkfifo(report / "fifo")
    assert main(["export", str(folder)]) == 0
    found = files_in(folder.parent / "tiny.tar.gz")
    assert found["tiny/report/d"] == b"page"
    assert {name.rpartition("/")[2] for name in found} == {"sweep.json", "records.parquet", "index.html", "d"}
    assert capsys.readouterr().err.count("it is left out") == 5


def test_a_read_only_sweep_is_exported_to_another_folder(
    read_only: Path, done: Done, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_sweep(read_only, done)
    lock(read_only)
    assert main(["export", str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {read_only / 'tiny.tar.gz'} cannot be written: ")
    assert said.endswith("name a file in another folder with --to\n")
    assert main(["export", str(folder), "--to", str(tmp_path / "x.tar.gz")]) == 0
    frame = pd.read_parquet(io.BytesIO(files_in(tmp_path / "x.tar.gz")["tiny/records.parquet"]))
    assert set(frame["trial_id"]) == {trial.trial_id for trial in done.trials}


def test_a_full_disk_is_one_line_and_leaves_nothing(
    small_disk: Path, done: Done, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_sweep(tmp_path, done)
    (folder / "report" / "noise").write_bytes(os.urandom(2**20))
    for leave in (0, 2**19):
        fill(small_disk, leave=leave)
        assert main(["export", str(folder), "--to", str(small_disk / "x.tar.gz")]) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "No space left on device; free some space there" in said
        assert [path.name for path in small_disk.iterdir()] == ["ballast"]


FORMULAS = ["=1+1", "+SUM(A1)", "-x", "@cmd", "=cmd|' /C calc'!A0", " =1", "\t=1", "\r@x", "＝1"]


def safe(text: str) -> str:
    return "'" + text.replace("\r", "\n")


@pytest.mark.parametrize("text", FORMULAS)
def test_a_text_that_would_be_a_formula_is_none(text: str) -> None:
    assert inert(text) == safe(text)


@pytest.mark.parametrize("value", ["gd", "a-b", "", "-0.5", "+1e3", "-inf", "'=1", -0.5, -3, None, True, "{'a': 1}"])
def test_numbers_and_plain_texts_stay(value: object) -> None:
    found = inert(value)
    assert found == value and type(found) is type(value)


def test_no_table_holds_a_formula(tmp_path: Path) -> None:
    frame = pd.DataFrame({"=name": FORMULAS, "value": -1.5, "kind": pd.Categorical(FORMULAS), "good": True})
    write_csv(frame, tmp_path / "x.csv")
    (head, *lines) = csv.reader(io.StringIO((tmp_path / "x.csv").read_text(), newline=""))
    assert head == ["'=name", "value", "kind", "good"]
    assert [line[0] for line in lines] == [line[2] for line in lines] == list(map(safe, FORMULAS))
    assert {(line[1], line[3]) for line in lines} == {("-1.5", "True")}
