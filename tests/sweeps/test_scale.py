"""What must not grow with the number of trials, and that the benchmark of it works."""

from __future__ import annotations

import re
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sweeps.commands.failures import failure_lines
from sweeps.storage.record_log import Trial, iter_trials
from sweeps.storage.table import compact
from tests.sweeps.conftest import Done
from tests.sweeps.tiny import ROOT, record


def grown(trials: list[Trial], studies: int) -> list[Trial]:
    """Copies of the trials in so many studies."""
    return [
        replace(trial, study=f"attack--method{n:03d}", trial_id=f"{trial.trial_id}-{n}")
        for n in range(studies)
        for trial in trials
    ]


def peak(work: Callable[[], object]) -> int:
    """Bytes of Python objects at the worst moment."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
@pytest.mark.parametrize("read", [compact, failure_lines, lambda folder: sum(1 for _ in iter_trials(folder))])
def test_memory_does_not_grow_with_the_trials(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: Callable[[Path], object]
) -> None:
    monkeypatch.setattr("sweeps.storage.table.ROWS_AT_ONCE", 50)
    needed = []
    for studies in (64, 8, 64):  # the first time for what is imported and kept, up to a limit, on the way
        folder = tmp_path / str(len(needed))
        record(folder, grown(done.trials, studies))
        (folder / "sweep.json").write_text('{"spec": {}}')
        needed.append(peak(lambda: read(folder)))  # noqa: B023 - called at once
    whole = peak(lambda: list(iter_trials(folder)))
    assert needed[2] < 1.5 * needed[1]
    assert needed[2] < whole / 4


@pytest.mark.slow
def test_the_benchmark_runs_and_a_million_trials_are_planned() -> None:
    command = [sys.executable, "-m", "benchmarks.pipeline_scale", "--inline", "--clock", "cpu", "--sizes", "300"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rows = [line.split(" | ") for line in told.splitlines() if line.startswith("| ")]
    assert rows[0][1:3] == ["fixed, s", "ms at 300"]
    assert [len(row) for row in rows] == [len(rows[0])] * 9
    assert 0.5 < float(rows[2][2]) < 200  # ms of a trial
    found = re.search(r"`--dry-run` of ([\d,]+) trials: ([\d.]+) s", told)
    assert found is not None
    assert found[1] == "1,000,000"
