"""What the pages show of pandas gives the numbers of the report."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal, assert_series_equal

from analysis.reading.load import load_sweep
from analysis.reading.points import CASE
from analysis.results.analyse import analyse
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.analysis.maker import Maker, rows
from tests.sweeps.tiny import ROOT, compacted, run_all, tiny

VALUES = ["efficacy", "utility_gap", "score"]


def value_of(page: str, marker: str) -> Any:
    """What the last expression of the page's snippet gives, without a print around it."""
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.M | re.S)
    (code,) = [block for block in blocks if marker in block]
    *before, last = ast.parse(code).body
    assert isinstance(last, ast.Expr)
    wanted = last.value.args[0] if isinstance(last.value, ast.Call) and "print" in ast.unparse(last) else last.value
    names: dict[str, Any] = {}
    exec(compile(ast.Module(before, []), page, "exec"), names)
    return eval(compile(ast.Expression(wanted), page, "eval"), names)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep, in the folders that README and operations page name."""
    out = tmp_path_factory.mktemp("project") / "results"
    sweep = tiny(name="quick", seeds={"tuning": [0], "confirmation": [1, 2]}, budgets=[0.1, 0.2, 0.3])
    run_all(ScenarioCache(sweep, RunEnvironment(out)), out / "quick")
    compacted(out / "quick")
    (out / "my-sweep").symlink_to("quick")
    return out.parent


def reported(folder: Path) -> pd.DataFrame:
    points = analyse(load_sweep(folder)).points
    return points[points["n_counted"] > 0].set_index(CASE).sort_index()


def test_the_readme_gives_the_numbers_of_the_report(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(real)
    found = value_of("README.md", "read_parquet").stack()
    expected = reported(real / "results" / "quick")["efficacy"]
    assert len(expected) == 9, "two methods and retrain@b at three budgets"
    assert_series_equal(found.rename("efficacy"), expected, check_exact=False, rtol=1e-12)


def test_the_operations_page_does_too(real: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(real)
    found = value_of("docs/operations.md", "read_parquet")
    assert_frame_equal(found, reported(real / "results" / "quick")[VALUES], check_exact=False, rtol=1e-12)


def test_failures_and_attacks_that_did_not_take_are_in_no_mean(known_folder: Path) -> None:
    table = rows(list(Maker().trials()))
    found = table[table["is_reported"]].groupby(CASE)["efficacy"].agg(["mean", "size"])
    points = reported(known_folder)
    assert points["n_counted"].min() < points["n_counted"].max(), "some seeds failed"
    assert_series_equal(found["size"], points["n_counted"], check_names=False)
    assert_series_equal(found["mean"], points["efficacy"], check_names=False, check_exact=False, rtol=1e-12)


def test_folders_without_the_column_are_read_as_before(real: Path, tmp_path: Path) -> None:
    whole = pd.read_parquet(real / "results" / "quick" / "records.parquet")
    assert whole["is_reported"].dtype == bool
    old = tmp_path / "quick"
    old.mkdir()
    whole.drop(columns="is_reported").to_parquet(old / "records.parquet", index=False)
    sweep = load_sweep(old)
    assert not any("another version" in note for note in sweep.notes)
    assert "is_reported" not in load_sweep(real / "results" / "quick").metric_columns
    assert_frame_equal(analyse(sweep).points, analyse(load_sweep(real / "results" / "quick")).points)
