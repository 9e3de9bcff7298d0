"""The real command on a sweep with a trial that hangs or crashes, in one process and on Ray."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from sweeps.storage.record_log import read_trials
from tests.sweeps.tiny import lines, start, write_config
from tests.sweeps.wild import settings, tuned

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def run(folder: Path, way: str, *arguments: str, **changes: object) -> tuple[int, str]:
    """Exit code and stderr."""
    config = write_config(folder, **settings(folder, way), **changes)
    process = start("--config", config, "--out", folder / "out", "--no-tracking", *arguments)
    _, said = process.communicate(timeout=800)
    return process.returncode, said


def check(folder: Path, why: str) -> None:
    done = folder / "out" / "tiny"
    assert [trial.error is None for _, trial in sorted(tuned(done).items())] == [True, False, True]
    assert why in tuned(done)[1].error
    assert len(lines(done)) == len(read_trials(done)) == 11


def test_a_hanging_trial_inline_ends_the_command_which_then_goes_on(tmp_path: Path) -> None:
    limit = {"trial_timeout": 5}
    code, said = run(tmp_path, "waits in C", "--inline", resources=limit)
    assert code == os.EX_TEMPFAIL, said
    assert said.strip().splitlines()[-1].endswith("its process ends, run the same command again to go on")
    code, said = run(tmp_path, "waits in C", "--inline", resources=limit)
    assert code == 0, said
    assert "1 of 11 trials failed" in said
    check(tmp_path, "TimeoutError: not finished after 5 s")


def test_a_limit_can_be_given_when_the_sweep_is_under_way(tmp_path: Path) -> None:
    config = write_config(tmp_path, **settings(tmp_path, "loops"))
    process = start("--config", config, "--out", tmp_path / "out", "--no-tracking", "--inline")
    while 0 not in tuned(tmp_path / "out" / "tiny"):
        assert process.poll() is None
    process.kill()
    process.communicate()
    code, said = run(tmp_path, "loops", "--inline", resources={"trial_timeout": 5})
    assert code == os.EX_TEMPFAIL, said
    assert run(tmp_path, "loops", "--inline", resources={"trial_timeout": 5})[0] == 0
    check(tmp_path, "TimeoutError: not finished after 5 s")


def test_a_trial_that_crashes_the_command_again_and_again(tmp_path: Path) -> None:
    codes = [run(tmp_path, "crashes", "--inline")[0] for _ in range(4)]
    assert codes == [-signal.SIGSEGV] * 3 + [0]
    check(tmp_path, "the worker process was lost 3 times")


@pytest.mark.ray
@pytest.mark.nightly  # tests/faults does both to the same command
@pytest.mark.parametrize("way, why", [("sleeps", "TimeoutError"), ("crashes", "lost 3 times")])
def test_on_ray_one_run_of_the_command_gets_over_it(tmp_path: Path, way: str, why: str) -> None:
    code, said = run(tmp_path, way, resources={"trial_timeout": 5})
    assert code == 0, said
    check(tmp_path, why)
