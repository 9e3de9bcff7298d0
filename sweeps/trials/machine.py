"""What this machine offers, and what a record says about where it was made."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("torch", "numpy", "ray", "optuna", "mlflow", "pandas")


def usable_cpus(root: Path = Path("/")) -> int:
    """Processors that this process may use, at least 1.

    Not those of the machine, but those that it may run on (taskset, batch systems) and no more than its control
    groups allow (containers).

    Args:
        root: Where proc and sys are.
    """
    return max(1, int(min([len(os.sched_getaffinity(0)), *_quotas(root)])))


def slots(cpus: float, workers: int | None) -> int:
    """Trials that run on this machine at a time if each takes so many processors. workers: at most so many."""
    room = max(1, int(usable_cpus() / max(0.01, cpus) + 1e-9))
    return room if workers is None else min(room, workers)


def _quotas(root: Path) -> Iterator[float]:
    """Processors that each control group above this process may use at a time, of both versions; none if unlimited."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, place = line.split(":", 2)
        if kinds and "cpu" not in kinds.split(","):
            continue
        top = root / "sys/fs/cgroup" / kinds
        own = Path(place.strip("/"))
        for group in (own, *own.parents):  # inside a container the upper ones are those that can be seen
            with contextlib.suppress(OSError, ValueError, ZeroDivisionError):
                yield _quota(top / group, unified=not kinds)


def _quota(group: Path, *, unified: bool) -> float:
    """Of one control group. Raises OSError or ValueError if it has no limit."""
    if unified:
        amount, period = (group / "cpu.max").read_text().split()
    else:
        amount, period = ((group / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
    if float(amount) <= 0:
        raise ValueError(amount)
    return float(amount) / float(period)  # "max" is no number


@lru_cache(maxsize=1)
def code_version() -> str:
    """Git commit of the code, `+` when it has local changes; the package version outside a repository."""
    here = Path(__file__).parent
    try:
        commit = _git(here, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if _git(here, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return _version("unlearning-vs-poisoning")


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


@lru_cache(maxsize=4)
def describe_machine(device: str, threads: int) -> dict[str, str | int]:
    """Host, processor or GPU, and CPU threads per trial."""
    import torch

    accelerator = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    return {"host": platform.node(), "device": accelerator, "threads": threads, "torch": torch.__version__}


def describe_driver(device: str, threads: int) -> dict[str, str | int]:
    """The same of the driver's machine, which need not have the GPU, and is to take no context on one that it has."""
    found = describe_machine("cpu", threads)
    if device != "cuda":
        return found
    try:
        asked = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        said = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        said = ""
    return found | {"device": said.partition("\n")[0] or "GPU"}


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that shape a run."""
    return {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from a copy of the sources
        return "unknown"
