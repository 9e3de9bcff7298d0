"""File systems that are small, full or read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

MIB = 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small tmpfs")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder to be filled; `lock` makes it read-only."""
    folder = tmp_path / "archive"
    folder.mkdir()
    yield folder
    if os.geteuid() == 0:
        subprocess.run(["umount", "-l", folder], check=False, capture_output=True)
    else:
        set_modes(folder, 0o755)


def lock(folder: Path) -> None:
    """Nobody can write below `folder` any more; for root, whom no mode stops, by a mount."""
    if os.geteuid() != 0:
        set_modes(folder, 0o555)
        return
    for options in (["--bind", folder, folder], ["-o", "remount,bind,ro", folder]):
        if subprocess.run(["mount", *options], capture_output=True).returncode:
            pytest.skip("nothing can be mounted read-only here")


def set_modes(folder: Path, mode: int) -> None:
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(mode)


def fill(folder: Path, *, leave: int = 0) -> Path:
    """Write a file until only `leave` bytes are free."""
    ballast = folder / "ballast"
    with open(ballast, "wb", buffering=0) as file:
        size = shutil.disk_usage(folder).free - leave
        while size > 0:
            size -= file.write(b"\0" * min(size, MIB))
    return ballast
