"""What a record says about where it was made."""

from __future__ import annotations

import platform
import subprocess
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("torch", "numpy", "ray", "optuna", "mlflow", "pandas")


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
