"""The process that runs the sweep is killed beside its mirror, or is not the only one; at any moment: `test_kills`."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.faults.harness import Sweep, Undisturbed, settle
from tests.faults.looks import runs_shown


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_driver_killed_beside_its_mirror_leaves_no_run_twice(undisturbed: Undisturbed, tmp_path: Path) -> None:
    base = tmp_path / "mlflow.db"
    sweep = Sweep(tmp_path / "sweep", "--inline", "--tracking-uri", f"sqlite:///{base}")
    sweep.order("hang", undisturbed.begun()[8])  # until the mirror is at work: to start takes it longer than the sweep
    code = sweep.run_until(lambda: sweep.records() > 12 and len(runs_shown(base)) > 1)
    assert code == -signal.SIGKILL, sweep.said()
    (sweep.place / "hang").unlink()
    sweep.finish()
    settle(sweep, undisturbed, "driver killed")
    sweep.finish("--sync-mlflow")  # nothing is left to send, unless the machine was so busy that it was not waited for
    shown = runs_shown(base)
    assert set(shown.values()) == {1}
    assert {key for key in shown if key.startswith("trial/")} == {f"trial/{t.trial_id}" for t in sweep.trials()}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_of_two_drivers_started_at_once_one_is_refused(undisturbed: Undisturbed, tmp_path: Path) -> None:
    sweep = Sweep(tmp_path / "sweep", "--inline")
    both = [sweep.start(), sweep.start()]
    for process in both:
        sweep.wait(process)
    assert sorted(process.returncode for process in both) == [0, 2], sweep.said()
    assert f"error: another process is running this sweep in {sweep.dir}: process " in sweep.said()
    settle(sweep, undisturbed, "two drivers at once", slots=0)
