"""What a notebook sees of a sweep is what its report says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

import analysis
from analysis import SweepResults
from analysis.reading.points import CASE, RETRAIN_AT_BUDGET
from analysis.report import Report
from tests.analysis.maker import INFO, METHODS, Maker, rows
from tests.sweeps.tiny import ROOT
from unlearn_core.checks import InputError


@pytest.fixture(scope="module")
def seen(known_folder: Path) -> SweepResults:
    return analysis.load(known_folder)


def csv(report: Report, name: str) -> pd.DataFrame:
    return pd.read_csv(report.path.parent / "tables" / f"{name}.csv")


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, analysis\nprint(*sys.modules, *dir(analysis))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = set(done.stdout.split())
    assert not loaded & {"numpy", "pandas", "matplotlib", "analysis.notebook"}
    assert set(analysis.__all__) <= loaded, "what dir() lists"


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'laod'; it has SweepResults, load"):
        _ = analysis.laod


@pytest.mark.slow
def test_points_are_those_of_the_report(seen: SweepResults, report: Report) -> None:
    points, written = seen.points, csv(report, "results").rename(columns={"n_counted": "n"})
    assert not points.duplicated(CASE).any()
    shared = [name for name in points if name in written]
    assert {"efficacy_low", "utility_gap", "n"} <= set(shared)
    both = (table[shared].sort_values(CASE, ignore_index=True) for table in (points, written))
    assert_frame_equal(*both, check_exact=False, check_dtype=False)
    row = seen.full.points.set_index(CASE)["score"]
    assert_frame_equal(points.set_index(CASE)[["score"]], row.to_frame())


def test_the_best_and_the_front_are_those_of_the_report(seen: SweepResults, report: Report) -> None:
    best = seen.best("patch").set_index("budget")
    written = csv(report, "best_per_budget")
    written = written[written["attack"] == "patch"].set_index("budget")
    assert best["method"].to_dict() == written["method"].to_dict()
    marked = csv(report, "results")
    marked = marked[(marked["attack"] == "patch") & marked["on_front"]]
    front = seen.front("patch")
    assert set(zip(front["method"], front["budget"], strict=True)) == set(
        zip(marked["method"], marked["budget"], strict=True)
    )
    assert front["budget_spent"].is_monotonic_increasing
    assert front["efficacy"].is_monotonic_increasing


def test_comparisons_are_those_with_the_rival_asked_for(seen: SweepResults, report: Report) -> None:
    written = csv(report, "comparisons")
    for against in ("retrain", RETRAIN_AT_BUDGET):
        own = written[written["against"] == against].set_index(CASE)["difference"]
        assert seen.compare(against=against).set_index(CASE)["difference"].to_dict() == pytest.approx(
            own.to_dict(), nan_ok=True
        )
    assert set(seen.compare("patch")["attack"]) == {"patch"}


def test_settings_are_columns(seen: SweepResults) -> None:
    points = seen.full.points.set_index(CASE)["settings"]
    settings = seen.settings
    assert len(settings) == (seen.points["method"] != RETRAIN_AT_BUDGET).sum()
    for case, row in settings.iterrows():
        told = json.loads(points[case])
        told.pop("name", None)
        assert row.dropna().to_dict() == told


def test_tables_are_copies(seen: SweepResults) -> None:
    for ask in (lambda: seen.points, lambda: seen.settings, lambda: seen.best(), lambda: seen.front("patch")):
        mine, before = ask(), ask()
        mine[mine.columns[-1]] = "mine"
        assert_frame_equal(ask(), before)


def test_metric_agreement_waits_until_it_is_asked_for(known_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[pd.DataFrame] = []
    monkeypatch.setattr(
        "analysis.results.analyse.agreement", lambda *_: made.append(pd.DataFrame({"rho": [0.5]})) or made[-1]
    )
    fresh = analysis.load(known_folder)
    assert repr(fresh)
    assert fresh._repr_html_()
    assert len(fresh.points) and len(fresh.best()) and len(fresh.compare())
    assert not made
    assert fresh.agreement["rho"].tolist() == fresh.agreement["rho"].tolist() == [0.5]
    assert len(made) == 1, "computed once"


def test_the_repr_has_a_line_per_attack(seen: SweepResults) -> None:
    head, *lines = repr(seen).splitlines()
    assert head.startswith(f"{seen.name}: {len(METHODS)} methods")
    assert [line.split()[0] for line in lines] == seen.attacks
    assert all(len(line) <= 125 for line in lines)
    for line, verdict in zip(lines, seen.verdicts, strict=True):
        assert verdict.text.startswith(line.split(maxsplit=1)[1].removesuffix(" ..."))


def test_html_shows_verdicts_and_numbers_and_escapes_names(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"

    trials = list(Maker(attacks=[evil], dead=[]).trials())
    (tmp_path / "sweep.json").write_text(json.dumps({**INFO, "name": evil}))
    rows(trials).to_parquet(tmp_path / "records.parquet")
    shown = analysis.load(tmp_path)._repr_html_()
    assert evil not in shown
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)  # type: ignore[method-assign]
    parser.feed(shown)
    assert "script" not in tags
    assert {"table", "b"} <= set(tags)


@pytest.mark.parametrize("kind", ["front", "tradeoff", "tuning_gap"])
def test_a_plot_has_the_width_asked_for_and_changes_no_setting(seen: SweepResults, kind: str) -> None:
    before = mpl.rcParams.copy()
    narrow, wide = seen.plot(kind, "patch", width=3.25), seen.plot(kind, width=7)
    assert narrow.get_figwidth() == 3.25
    assert wide.get_figwidth() == 7
    assert len([ax for ax in narrow.axes if ax.get_visible()]) == 1
    assert {ax.get_title() for ax in wide.axes if ax.get_visible()} >= {"patch"}
    assert mpl.rcParams == before
    assert not plt.get_fignums(), "pyplot would show it a second time"
    narrow.canvas.draw()
    box = narrow.get_tightbbox()
    assert box.x0 >= -0.05 and box.x1 <= 3.3, "nothing is cut off"


def test_wrong_words_are_answered_with_near_ones(seen: SweepResults) -> None:
    for ask in (seen.front, seen.best, seen.compare, lambda name: seen.plot("front", name)):
        with pytest.raises(InputError, match=r"attack 'patsh' is unknown; did you mean 'patch'\?"):
            ask("patsh")
    with pytest.raises(InputError, match=r"figure 'fronts' is unknown; did you mean 'front'"):
        seen.plot("fronts")
    with pytest.raises(InputError, match="width must be a positive number, but got 0"):
        seen.plot(width=0)
    with pytest.raises(InputError, match="against 'oracle' is unknown"):
        seen.compare(against="oracle")


def test_a_folder_of_sweeps_names_those_that_it_holds(known_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^'[^']*' is not the results folder of a sweep: it holds no records$"):
        analysis.load(tmp_path)
    shutil.copytree(known_folder, tmp_path / "mine")
    with pytest.raises(InputError, match=re.escape(f"did you mean {str(tmp_path / 'mine')!r}?")):
        analysis.load(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        analysis.load(tmp_path / "nowhere")


@pytest.mark.slow
def test_the_page_on_notebooks_runs(known_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "results").mkdir()
    shutil.copytree(known_folder, tmp_path / "results" / "quick")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / "notebook.md").read_text(), re.M | re.S)
    names: dict[str, object] = {}
    for block in blocks:
        exec(block.replace('"badnets"', '"patch"'), names)
    assert (tmp_path / "front.pdf").read_bytes().startswith(b"%PDF")
