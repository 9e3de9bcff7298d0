"""The head of a Ray cluster on this machine, as `ray up` starts one, with ports, folder and token of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.sweeps.tiny import ROOT

PACKAGES = ("unlearn_core", "sweeps", "analysis")
RAY = Path(sys.executable).with_name("ray")
PATIENCE = 420.0  # seconds for anything that Ray does: mostly a few, on a busy machine many times that


class Head(NamedTuple):
    """home: home folder of whoever uses it, with the token and the project where the cluster files put them."""

    home: Path
    environment: dict[str, str]

    def ray(self, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
        """A command as a user types it, given no time to hang; `changes` are to its environment."""
        command = [str(RAY), *words]
        environment = self.environment | changes
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE)

    def said(self, *words: str) -> str:
        """What a command that must succeed printed."""
        done = self.ray(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


def user(home: Path, port: int) -> dict[str, str]:
    """The environment of somebody with this home folder who talks to the head at `port`."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    own = {"HOME": str(home), "RAY_AUTH_MODE": "token", "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port}"}
    return plain | own | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="session")
def head() -> Iterator[Head]:
    """Two CPUs. Its folder is short: Ray puts sockets there, whose names must not be long."""
    folder = Path(tempfile.mkdtemp(prefix="head", dir="/tmp"))
    port, *others = free_ports(5)
    made = Head(folder, user(folder, port))
    link_project(folder / "unlearning")
    made.said("get-auth-token", "--generate")
    command = [RAY, "start", "--head", "--block", "--num-cpus=2", f"--object-store-memory={2**27}"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--temp-dir={folder}/ray"]
    names = ("port", "dashboard-agent-listen-port", "ray-client-server-port", "metrics-export-port")
    command += [f"--dashboard-port={port}", *(f"--{name}={other}" for name, other in zip(names, others, strict=True))]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=made.environment, cwd=folder, start_new_session=True
        )
    try:
        await_jobs(made, process)
        yield made
    finally:
        end(process, str(folder))
        shutil.rmtree(folder)


def link_project(folder: Path) -> None:
    """The project as it is set up in a folder: sources, and the environment of this process as `.venv`."""
    folder.mkdir(exist_ok=True)
    for package in PACKAGES:
        (folder / package).symlink_to(ROOT / package)
    (folder / ".venv").symlink_to(sys.prefix)


def copy_sources(folder: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for opened in sockets:
            opened.bind(("127.0.0.1", 0))
        return [opened.getsockname()[1] for opened in sockets]


def await_jobs(head: Head, process: subprocess.Popen[bytes]) -> None:
    """Until jobs can be submitted."""
    end = time.monotonic() + PATIENCE
    while head.ray("job", "list").returncode:
        assert process.poll() is None and time.monotonic() < end, (head.home / "log").read_text()
        time.sleep(1)


def end(process: subprocess.Popen[bytes], mark: str) -> None:
    """End Ray, then those of its processes that have `mark` in their environment and outlived it."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=30)
    for _ in range(100):
        left = processes(mark)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not left:
            break
        time.sleep(0.1)
    process.wait()


def processes(mark: str) -> list[int]:
    """Processes that were started with `mark` in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and mark.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found
