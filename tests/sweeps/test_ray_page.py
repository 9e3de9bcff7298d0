"""The example on the page about Ray Tune does what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sweeps import Sweep, run_sweep
from sweeps.commands.driver import Driver
from sweeps.execution.study_report import StudyReport
from sweeps.storage.record_log import read_trials
from tests.sweeps.conftest import Done
from tests.sweeps.tiny import science

PAGE = (Path(__file__).parents[2] / "docs" / "ray.md").read_text()
EXAMPLE = "\n".join(re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL))


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
    said = [line.partition(", score")[0] for line in capsys.readouterr().out.splitlines() if ": proposal " in line]
    assert sorted(said) == [f"badnets--{method}: proposal {number}" for method in ("gd", "ssd") for number in (0, 1)]
    assert names["best"].metrics["best_score"] == names["table"]["best_score"].max()
    ended = names["result"]
    assert (ended.failed, ended.missing, ended.complete) == (0, 2, False)
    again = run_sweep(done.sweep, tracking=False, inline=True)
    assert again.complete and again.grid is None
    assert science(read_trials(again.folder)) == science(done.trials)


def test_every_reported_value_is_on_the_page() -> None:
    rows = set(re.findall(r"`(\w+)(?:/<\w+>)?`", PAGE.partition("## What is reported")[2].partition("Confirmation")[0]))
    assert set(StudyReport.__dataclass_fields__) | {"finished", "error"} <= rows
