"""How many processors a command uses: those that it may use, and no more workers than asked for."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.commands.run import main
from sweeps.execution import ray_executor
from sweeps.execution.ray_executor import RayExecutor, local_room
from sweeps.trials import machine
from sweeps.trials.machine import slots, usable_cpus
from tests.sweeps.tiny import ROOT, command, write_config

UNIFIED, SPLIT = "0::{}\n", "4:memory:{0}\n2:cpu,cpuacct:{0}\n1:cpuset:/\n"


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that may run on 16 processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


def tree(root: Path, groups: str, files: dict[str, str]) -> Path:
    all_files = {"proc/self/cgroup": groups} | {f"sys/fs/cgroup/{k}": v for k, v in files.items()}
    for name, text in all_files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        (UNIFIED.format("/"), {"cpu.max": "200000 100000\n"}, 2),
        (UNIFIED.format("/"), {"cpu.max": "max 100000\n"}, 16),
        (UNIFIED.format("/"), {"cpu.max": "50000 100000\n"}, 1),
        (UNIFIED.format("/"), {"cpu.max": "350000 100000\n"}, 3),
        (UNIFIED.format("/a/b"), {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3),
        (UNIFIED.format("/a/b"), {"a/cpu.max": "300000 100000", "a/b/cpu.max": "400000 100000"}, 3),
        (UNIFIED.format("/docker/id"), {"cpu.max": "400000 100000"}, 4),
        (
            SPLIT.format("/"),
            {"cpu,cpuacct/cpu.cfs_quota_us": "200000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            2,
        ),
        (SPLIT.format("/"), {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"}, 16),
        (
            SPLIT.format("/job/7"),
            {"cpu,cpuacct/job/cpu.cfs_quota_us": "500000", "cpu,cpuacct/job/cpu.cfs_period_us": "100000"},
            5,
        ),
        (SPLIT.format("/"), {}, 16),
        ("", {}, 16),
    ],
)
@pytest.mark.usefixtures("many")
def test_control_groups_limit_the_processors(groups: str, files: dict[str, str], expected: int, tmp_path: Path) -> None:
    assert usable_cpus(tree(tmp_path, groups, files)) == expected


@pytest.mark.slow
def test_a_process_uses_the_processors_that_it_is_bound_to(tmp_path: Path) -> None:
    one = min(os.sched_getaffinity(0))
    code = "from sweeps.trials.machine import usable_cpus; print(usable_cpus())"
    bound = {"preexec_fn": lambda: os.sched_setaffinity(0, {one}), "capture_output": True, "text": True, "cwd": ROOT}
    assert subprocess.run([sys.executable, "-c", code], **bound).stdout == "1\n"  # type: ignore[call-overload]
    config = write_config(tmp_path, resources={"cpus": 2})
    done = subprocess.run(command("--config", config, "--out", tmp_path, "--inline"), **bound)  # type: ignore[call-overload]
    assert done.returncode == 2
    assert "has 1 that this command may use" in done.stderr and "--set resources.cpus=1" in done.stderr


@pytest.mark.slow
def test_the_plan_counts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("sweeps.trials.machine.usable_cpus", lambda: 4)
    words = ["--config", str(write_config(tmp_path)), "--out", str(tmp_path), "--dry-run"]
    for more, expected in ([], 4), (["--workers", "3"], 3), (["--workers", "9"], 4), (["--inline"], 1):
        assert main([*words, *more]) == 0
        assert f" on {expected} at a time" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cpus", "workers", "usable", "expected"),
    [(1, 1, 4, 1), (1, 3, 4, 3), (1, 9, 4, 4), (2, 1, 4, 1), (2, 9, 5, 2), (0.5, 1, 4, 1), (0.5, 3, 4, 3),
     (1.5, 1, 4, 1), (1.5, 2, 4, 2), (0.3, 7, 2, 6), (1, 1, 1, 1)],
)  # fmt: skip
def test_as_many_cells_fit_as_there_shall_be_workers(
    cpus: float, workers: int, usable: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (machine, ray_executor):
        monkeypatch.setattr(module, "usable_cpus", lambda: usable)
    room, share = local_room(cpus, workers)
    assert room <= usable and share >= cpus
    assert int(1e4 * room) // round(1e4 * share) == expected == slots(cpus, workers)
    assert local_room(cpus, None) == (usable, cpus)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--workers", "0"], "whole number above 0"),
        (["--workers", "two"], "whole number above 0"),
        (["--workers", "2", "--address", "127.0.0.1:6379"], "--workers is for this machine alone"),
    ],
)
def test_what_is_no_number_of_workers(words: list[str], told: str, capsys: pytest.CaptureFixture) -> None:
    try:
        code: object = main(words)
    except SystemExit as problem:
        code = problem.code
    assert code == 2
    assert told in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.ray
def test_a_local_ray_has_as_many_places() -> None:
    executor = RayExecutor("local", cpus=1, gpus=0, workers=1)
    try:
        assert executor._places() == 1
    finally:
        executor.close()
