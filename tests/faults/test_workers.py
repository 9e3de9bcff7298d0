"""Workers on Ray die at the worst moments; the command that is running goes on with others."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.harness import Sweep, Undisturbed, recorded_id, settle
from tests.sweeps.tiny import lines

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(1800)]


def killing(victim: Callable[[], int | None]) -> Callable[[], bool]:
    """Kills the first process that `victim` names."""

    def disturb() -> bool:
        pid = victim()
        if pid is None:
            return False
        os.kill(pid, signal.SIGKILL)
        return True

    return disturb


@pytest.mark.parametrize("doing", ["training", "trial"])
def test_a_worker_killed_at_work(undisturbed: Undisturbed, tmp_path: Path, doing: str) -> None:
    sweep = Sweep(tmp_path / "sweep")
    sweep.run_while(killing(sweep.in_training if doing == "training" else sweep.in_trial))
    settle(sweep, undisturbed, f"worker killed in a {doing}")


@pytest.mark.parametrize(("what", "end"), [("a record", ".jsonl"), ("an artifact", ".safetensors")])
def test_a_worker_killed_while_it_writes(undisturbed: Undisturbed, tmp_path: Path, what: str, end: str) -> None:
    sweep = Sweep(tmp_path / "sweep")
    ordered: list[str] = []

    def disturb() -> bool:
        if not ordered and (what == "an artifact" or sweep.in_trial()):
            sweep.order(f"cut {end}")
            ordered.append(end)
        return bool(ordered) and not (sweep.place / f"cut {end}").exists()

    sweep.run_while(disturb)
    settle(sweep, undisturbed, f"worker killed while it writes {what}")
    assert sum(recorded_id(line) is None for line in lines(sweep.dir)) == (what == "a record")
