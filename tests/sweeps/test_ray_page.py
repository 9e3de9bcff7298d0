"""The example on the page about Ray Tune does what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sweeps import Sweep, run_sweep
from sweeps.commands.driver import Driver
from sweeps.execution.study_report import StudyReport
from sweeps.storage.record_log import read_trials
from tests.sweeps.conftest import Done
from tests.sweeps.tiny import ROOT, science

PAGE = (ROOT / "docs" / "ray.md").read_text()
EXAMPLE = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))

SMALL = """
import ray  # as in a notebook: before this project has set anything
from sweeps import Sweep
from sweeps.commands.driver import Driver
from tests.sweeps.tiny import tiny
Sweep.preset = lambda name: tiny()
Driver._analyse = lambda self: 0
"""


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_the_example(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Sweep, "preset", lambda name: done.sweep)
    monkeypatch.setattr(Driver, "_analyse", lambda self: 0)
    names: dict[str, Any] = {}
    exec(EXAMPLE, names)
    said = re.findall(r"badnets--(gd|ssd)(?:--trial\S+)?: proposal (\d)", capsys.readouterr().out)
    assert {(method, number) for method in ("gd", "ssd") for number in "01"} <= set(said)
    assert names["best"].metrics["best_score"] == names["table"]["best_score"].max()
    ended = names["result"]
    assert (ended.failed, ended.missing, ended.complete) == (0, 2, False)
    again = run_sweep(done.sweep, tracking=False, inline=True)
    assert again.complete and again.grid is None
    assert science(read_trials(again.folder)) == science(done.trials)


@pytest.mark.ray
@pytest.mark.timeout(400)
def test_the_example_runs_where_ray_was_imported_first(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["PYTHONPATH"] = str(ROOT)
    script = [sys.executable, "-c", SMALL + EXAMPLE]
    ended = subprocess.run(script, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert "badnets--gd" in ended.stdout


def test_every_reported_value_is_on_the_page() -> None:
    rows = set(re.findall(r"`(\w+)(?:/<\w+>)?`", PAGE.partition("## What is reported")[2].partition("Confirmation")[0]))
    assert set(StudyReport.__dataclass_fields__) | {"finished", "error"} <= rows
