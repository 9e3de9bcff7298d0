"""Trials that never end and trials that take their process with them are recorded as failed; all others go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from sweeps.attempts import LOSSES
from tests.faults.harness import Sweep, Undisturbed, settle

SECONDS = 15  # that a trial may take here


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_trial_that_hangs_and_one_that_crashes_are_recorded(undisturbed: Undisturbed, tmp_path: Path) -> None:
    begun = [trial for trial in undisturbed.begun() if undisturbed.recorded(trial)["stage"] == "confirmation"]
    hanging, crashing = begun[0], begun[-1]  # no proposal depends on them
    ids = [undisturbed.recorded(trial)["trial_id"] for trial in (hanging, crashing)]
    sweep = Sweep(tmp_path / "sweep", resources={"trial_timeout": SECONDS})
    sweep.order("hang", hanging)
    sweep.order("crash", crashing)
    sweep.finish()
    error = {trial["trial_id"]: trial["error"] for trial in sweep.trials() if trial["error"]}
    assert sorted(error) == sorted(ids)
    assert f"TimeoutError: not finished after {SECONDS} s" in error[ids[0]]
    assert "counted.py" in error[ids[0]]  # where it hung
    assert error[ids[1]].startswith("ProcessLostError: ")
    times = [sum(trial == each for _, trial in sweep.starts()) for each in (hanging, crashing)]
    assert times == [1, LOSSES]
    settle(sweep, undisturbed, "a trial hangs", tried=times[0], slots=2, but=ids)
    settle(sweep, undisturbed, "a trial ends its process", tried=times[1], slots=2, but=ids)
