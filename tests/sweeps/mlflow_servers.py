"""MLflow servers for tests, on a database file or on PostgreSQL, that can be killed and started again."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import quote

from sweeps.tracking.uri import reachable
from tests.sweeps.tracking_store import Store, wait_for

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
"""Of Debian's package `postgresql`, the newest last."""


class Postgres:
    """A database in `folder`, which its user may enter; it listens on a socket there, on no port, without a password.

    PostgreSQL refuses to run as root; for root it runs as the user that Debian's package makes.
    """

    def __init__(self, folder: Path) -> None:
        self.data, self.programs = folder / "data", PROGRAMS[-1].parent
        self.options = f"-k {folder} -h '' -c unix_socket_permissions=0700"
        self.uri = f"postgresql+psycopg://mlflow@/postgres?host={quote(str(folder))}"
        self.user = pwd.getpwnam("postgres").pw_uid if os.geteuid() == 0 else os.geteuid()
        os.chown(folder, self.user, -1)
        self._run("initdb", "--auth=trust", "--username=mlflow", "--encoding=UTF8", "--no-sync").check_returncode()

    def start(self) -> None:
        """Retries, because after a crash the remains of its processes hold the data for some seconds."""
        log = str(self.data / "server.log")
        wait_for(lambda: self._run("pg_ctl", "start", "-w", "-l", log, "-o", self.options).returncode == 0, 30)

    def kill(self) -> None:
        os.kill(int((self.data / "postmaster.pid").read_text().partition("\n")[0]), signal.SIGKILL)

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-m", "immediate")

    def _run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [str(self.programs / program), "-D", str(self.data), *arguments]
        return subprocess.run(command, user=self.user, cwd="/", stdout=subprocess.DEVNULL, check=False)


class MlflowServer:
    """`mlflow server` on a database, with its log and the attached files in `folder`."""

    def __init__(self, uri: str, folder: Path) -> None:
        self.store, self.folder, self.log = Store(uri), folder, folder / "mlflow.log"
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        place = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "2", "--backend-store-uri", uri]
        self.command = [sys.executable, "-m", "mlflow", "server", *place]
        self.command += ["--artifacts-destination", str(folder / "artifacts")]
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start what does not answer, and wait until it does."""
        if reachable(self.address) is None:
            return
        self.kill()
        quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with open(self.log, "a") as log:
            self.process = subprocess.Popen(
                self.command, stdout=log, stderr=log, env=os.environ | quiet, start_new_session=True
            )
        wait_for(lambda: reachable(self.address) is None, 180)

    def pids(self) -> list[int]:
        """All its processes that live: those in the process group of the first."""
        stats = {int(path.name): path / "stat" for path in Path("/proc").glob("[0-9]*")}
        return [pid for pid, stat in stats.items() if self.process and group(stat) == self.process.pid]

    def signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            os.kill(pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        if self.process:
            self.process.wait()
        while self.pids():
            time.sleep(0.05)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


def group(stat: Path) -> int:
    """Process group in a file /proc/PID/stat; 0 if the process is gone or dead."""
    try:
        state, _, number, *_ = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if state == "Z" else int(number)
