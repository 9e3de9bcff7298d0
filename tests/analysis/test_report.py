"""The written report: files, texts, escaping, exit codes, and that it draws in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from analysis.figures import front
from analysis.figures.style import looks
from analysis.report import Report, build_report, main
from analysis.results.analyse import Results
from analysis.tables.report_tables import grid_text
from tests.analysis.maker import INFO, Maker, rows, write_sweep
from tests.disks import fill

EVIL = "<script>alert(1)</script>"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         "--disable-sync", "--virtual-time-budget=10000", "--dump-dom"]  # fmt: skip


def test_files(report: Report) -> None:
    folder = report.path.parent
    tables = {p.name for p in (folder / "tables").iterdir()}
    assert {"results.csv", "results.md", "comparisons.csv", "best_per_budget.csv", "hypervolume.csv"} <= tables
    for kind in ("front", "tradeoff", "tuning_gap", "ladder_1_patch"):
        assert (folder / "figures" / f"{kind}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / "figures" / f"{kind}.pdf").read_bytes().startswith(b"%PDF")


def test_csv_holds_every_point(report: Report) -> None:
    table = pd.read_csv(report.path.parent / "tables" / "results.csv")
    assert len(table) == 3 * 6 * 5
    assert table.duplicated(["attack", "method", "budget"]).sum() == 0
    assert table.loc[table["on_front"], "within_tolerance"].all()
    assert {"efficacy", "efficacy_low", "efficacy_high", "utility_gap", "n_failed", "settings"} <= set(table)


def test_terminal_text(report: Report) -> None:
    text = report.text
    assert re.search(r"^winner +0\.\d\d±0\.\d\d \(\+0\.010\)", text, re.MULTILINE)
    assert "1F" in text
    assert "0.080)!" in text
    assert "verdict: the attack did not take" in text
    best = [line for line in text.splitlines() if "*" in line and not line.startswith("efficacy")]
    assert {line.split()[0] for line in best} == {"winner", "fragile"}


def test_the_best_of_those_that_remove_nothing_has_no_star(known: Results) -> None:
    points = known.points
    nothing = points["method"].isin(["winner", "fragile", "tie", "loser"])
    weak = points.assign(efficacy=points["efficacy"].mask(nothing, 0.005))
    assert any("*" in cell for row in grid_text(known, "patch")[1] for cell in row)
    assert not any("*" in cell for row in grid_text(replace(known, points=weak), "patch")[1] for cell in row)


def test_markers_at_the_same_point_are_smaller_the_later_they_are_drawn(known: Results) -> None:
    shown = front.curve(known, "patch")
    same = shown._replace(points=shown.points.drop_duplicates("method").head(3), retrain=shown.retrain.head(0))
    same = same._replace(points=same.points.assign(x=0.1, efficacy=0.5))
    sizes = front._sized(same, looks(known.methods))[0]["size"].tolist()
    assert sizes == [30.0, 15.0, 7.5]
    apart = same._replace(points=same.points.assign(efficacy=[0.1, 0.5, 0.9]))
    assert front._sized(apart, looks(known.methods))[0]["size"].tolist() == [30.0] * 3


def test_page_is_whole_and_self_contained(report: Report) -> None:
    page = report.path.read_text(encoding="utf-8")
    assert page.count("plotly.js v") >= 1
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:)""", outside), "refers to another file"
    for text in (
        "winner beats retrain@b",
        INFO["command"],
        "Gaussian unlearning score",
        "Nobody 2025",
        "mean, pooled z",
    ):
        assert text in page


@pytest.mark.slow
def test_names_from_the_records_are_escaped(tmp_path: Path) -> None:
    trials = list(Maker(attacks=[EVIL], dead=[]).trials())
    for trial in trials:
        trial |= {"dataset": EVIL, "model": "$x_{$ & co", "settings": json.dumps({EVIL: EVIL})}
        trial["method"] = trial["method"].replace("winner", EVIL)
        trial["rungs"] = [r | {"metrics": {EVIL: r["primary_value"]}} for r in trial["rungs"]]
    (tmp_path / "sweep.json").write_text(json.dumps({**INFO, "name": EVIL, "command": EVIL, "machine": {EVIL: EVIL}}))
    rows(trials).to_parquet(tmp_path / "records.parquet")
    report = build_report(tmp_path)
    page = report.path.read_text(encoding="utf-8")
    assert EVIL in set(report.results.agreement["metric"])
    assert EVIL not in page
    assert page.count("<script") - page.split("</style>")[0].count("<script") - _plotly_scripts() == 3
    assert "&lt;script&gt;alert(1)" in page


def _plotly_scripts() -> int:
    from plotly.offline import get_plotlyjs

    return int(get_plotlyjs().count("<script"))


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["seconds", "passes"])
def test_options(known_folder: Path, tmp_path: Path, axis: str, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "elsewhere"
    assert main([str(known_folder), "--budget-axis", axis, "--tolerance", "0.1", "--out", str(out)]) == 0
    assert f'value="{axis}" selected' in (out / "index.html").read_text(encoding="utf-8")
    printed = capsys.readouterr().out
    assert "careless beats retrain@b at every budget" in printed
    assert f"report: {out / 'index.html'}" in printed


def test_tuning_alone_still_makes_a_page(tmp_path: Path) -> None:
    kept = [t for t in Maker(dead=[]).trials() if t["stage"] == "tuning"]
    rows(kept).to_parquet(tmp_path / "records.parquet")
    report = build_report(tmp_path)
    assert "There are no confirmation trials" in report.path.read_text(encoding="utf-8")
    assert "undecided: there are no confirmed results yet" in report.text


@pytest.mark.slow
def test_method_chosen_for_one_attack_only(known_folder: Path, tmp_path: Path) -> None:
    """In mode `best` a method may be confirmed for one attack and never for another."""
    rows = pd.read_parquet(known_folder / "records.parquet")
    attack, method = rows.loc[rows["stage"] == "confirmation", ["attack", "method"]].iloc[0]
    gone = (rows["stage"] == "confirmation") & (rows["attack"] == attack) & (rows["method"] == method)
    folder = tmp_path / "best"
    folder.mkdir()
    rows[~gone].to_parquet(folder / "records.parquet")
    assert build_report(folder).path.exists()


@pytest.mark.slow
def test_references_alone_still_make_a_page(tmp_path: Path) -> None:
    kept = [t for t in Maker().trials() if t["stage"] == "reference"]
    rows(kept).to_parquet(tmp_path / "records.parquet")
    assert build_report(tmp_path).path.exists()


@pytest.mark.parametrize("content, words", [(None, "no records"), (b"junk", "cannot be read as a parquet file")])
def test_unusable_folders_end_with_code_2(
    tmp_path: Path, content: bytes | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if content is not None:
        (tmp_path / "records.parquet").write_bytes(content)
    assert main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert len(error.strip().splitlines()) == 1


def test_bad_tolerance_ends_with_code_2(known_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(known_folder), "--tolerance", "-1"]) == 2
    assert "tolerance must be zero or a positive number" in capsys.readouterr().err


@pytest.mark.slow
def test_missing_folder_as_a_command(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "analysis.report", str(tmp_path / "nowhere")]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2], check=False
    )
    assert done.returncode == 2
    assert "does not exist" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.browser
def test_fronts_draw_in_a_browser(tmp_path: Path) -> None:
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"none of {', '.join(BROWSERS)} is installed")
    page = build_report(write_sweep(tmp_path / "known")).path
    command = [browser, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", page.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False).stdout
    for name in ("front-0", "front-1", "tradeoff-0", "tradeoff-1"):
        box = dom.split(f'id="{name}"', 1)[1].split("<h3>", 1)[0]
        assert box.count('<g class="trace scatter') >= 6, f"{name} drew no traces"
        assert "winner" in box
    assert 'id="front-2"' not in dom, "the attack that did not take has no front"


@pytest.mark.slow
@pytest.mark.parametrize("leave", [150_000, 300_000, 450_000, 2_000_000])  # in tables, figures, and the page
def test_a_disk_that_fills_up_while_the_report_is_written_is_one_line(
    known_folder: Path, small_disk: Path, leave: int, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(small_disk, leave=leave)
    assert main([str(known_folder), "--out", str(small_disk / "report")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(f"error: the report cannot be written to '{small_disk / 'report'}': ")
    assert "No space left on device" in said[-1]
