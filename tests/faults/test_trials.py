"""Trials that never end and trials that take their process with them are recorded as failed; all others go on."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sweeps.execution.crash_counter import LOSSES
from tests.faults.harness import Sweep, Undisturbed, settle
from tests.faults.ledger import LEDGER

SECONDS = 15  # that a trial may take here


def complete(sweep: Sweep) -> list[int]:
    """Give the same command until it is done; the exit codes."""
    codes = [1]
    while codes[-1] != 0 and len(codes) < 9:
        process = sweep.start()
        sweep.wait(process)
        codes.append(process.returncode)
    assert codes[-1] == 0, sweep.said()
    return codes[1:]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], marks=[pytest.mark.ray, pytest.mark.slow]),
        pytest.param(["--inline"], marks=pytest.mark.nightly),
    ],
)
def test_trials_that_hang_and_crash_are_recorded(undisturbed: Undisturbed, tmp_path: Path, options: list[str]) -> None:
    begun = [trial for trial in undisturbed.begun() if undisturbed.recorded(trial).stage == "confirmation"]
    hanging, crashing = begun[0], begun[-1]  # no proposal depends on them
    ids = [undisturbed.recorded(trial).trial_id for trial in (hanging, crashing)]
    sweep = Sweep(tmp_path / "sweep", *options, resources={"trial_timeout": SECONDS})
    sweep.order("hang", hanging)
    sweep.order("crash", crashing)
    codes = complete(sweep)
    ends = [os.EX_TEMPFAIL, *[-signal.SIGSEGV] * LOSSES] if options else []  # in this process they end the command
    assert sorted(codes) == sorted([0, *ends])
    error = {trial.trial_id: trial.error for trial in sweep.trials() if trial.error}
    assert sorted(error) == sorted(ids)
    assert f"TimeoutError: not finished after {SECONDS} s" in error[ids[0]]
    assert "counted.py" in error[ids[0]]  # where it hung
    assert error[ids[1]].startswith("ProcessLostError: ")
    times = [sum(trial == each for _, trial in sweep.starts()) for each in (hanging, crashing)]
    assert times == [1, LOSSES]
    lost, repeated, equal = settle(sweep, undisturbed, "a trial ends its process", tried=LOSSES, slots=2, but=ids)
    assert repeated == LOSSES - 1
    LEDGER.add("a trial hangs", lost=lost, repeated=0, equal=equal)
