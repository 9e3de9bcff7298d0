"""An MLflow server for a team, with PostgreSQL behind it, everything in one folder, reached from this machine only.

    python -P -m sweeps.tracking.server start DIR      what is there is used, what is missing is made
    python -P -m sweeps.tracking.server status DIR
    python -P -m sweeps.tracking.server stop DIR

`DIR/postgres` is the database, `DIR/artifacts` what runs have attached, `DIR/password` the database's password,
`DIR/mlflow.log` what the server says. Which processes are the server is read from their environment, so that no file
about them can be out of date. Start, look and stop as the same user.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

from sweeps.commands.errors import answered
from sweeps.storage.locking import locked
from sweeps.tracking.postgres import Postgres, environment, install
from sweeps.tracking.uri import reachable
from unlearn_core.checks import InputError, in_range
from unlearn_core.host.output import run as run_command

MARK = "UNLEARNING_TRACKING_SERVER"  # in the environment of the server's processes: its port and folder
PATIENCE = 180.0  # seconds to start; MLflow takes 10 to 30 of them
GRACE = 10.0  # seconds to end by itself
WORKERS = 2
QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PYTHONSAFEPATH": "1",  # its own processes do not import what lies in the current folder
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # a third of the time to start, half the memory
}


class TrackingServer:
    """What is in a folder: PostgreSQL, MLflow, artifacts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.password, self.log = self.folder / "password", self.folder / "mlflow.log"
        self.postgres = Postgres(self.folder / "postgres", self.password)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Wait for another start or stop of this folder. Raises StorageError."""
        with locked(self.folder, "starts or stops this server"):
            yield

    def start(self, port: int) -> str:
        """Start what does not run; returns the address. Raises InputError with what is missing or in the way."""
        self.start_database()
        if (address := self.address()) and not reachable(address):
            return address
        self._end_mlflow()
        in_range("--port", port, 1, 65535)
        if self._taken(port):
            raise InputError(f"--port {port} is in use on this machine; choose another")
        return self._start_mlflow(port)

    def start_database(self) -> None:
        if find_spec("psycopg") is None:
            raise InputError("psycopg is not installed, which MLflow needs for PostgreSQL; install the extra postgres")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o711)  # PostgreSQL passes through it as another user; what is in it is closed
        self.postgres.start()

    def stop(self) -> None:
        """MLflow first: it finishes what it was asked."""
        self._end_mlflow()
        self.postgres.stop()

    def address(self) -> str | None:
        """Where MLflow listens, if one of its processes lives, whether it answers or not."""
        return next((f"http://127.0.0.1:{port}" for _, port in self.processes()), None)

    def status(self) -> tuple[bool, str]:
        """Whether all is well, and the state in a line."""
        address, database = self.address(), self.postgres.runs()
        problem = reachable(address) if address else "stopped"
        state = f"PostgreSQL {'runs' if database else 'stopped'}, MLflow {problem or f'answers at {address}'}"
        return database and problem is None, f"{self.folder}: {state}"

    def _start_mlflow(self, port: int) -> str:
        artifacts = self.folder / "artifacts"
        artifacts.mkdir(mode=0o700, exist_ok=True)
        options = f"--host 127.0.0.1 --port {port} --workers {WORKERS} --uvicorn-opts=--no-access-log".split()
        command = [sys.executable, "-P", "-m", "mlflow", "server", *options, "--artifacts-destination", str(artifacts)]
        own = {MARK: f"{port} {self.folder}", "PGPASSFILE": str(self.password)}
        own["MLFLOW_BACKEND_STORE_URI"] = self.postgres.uri
        with open(self.log, "a", opener=lambda path, flags: os.open(path, flags, 0o600)) as log:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                env=environment() | QUIET | own, start_new_session=True,
            )  # fmt: skip
        address, end = f"http://127.0.0.1:{port}", time.monotonic() + PATIENCE
        while reachable(address):
            if process.poll() is not None or time.monotonic() > end:
                self._end_mlflow()
                raise InputError(f"MLflow did not start: {self._reason()}; all it said is in {self.log}")
            time.sleep(0.2)
        return address

    def _reason(self) -> str:
        """The last line of the log that names an error, or the last of all."""
        lines = [line.strip() for line in self.log.read_text().splitlines()[-200:] if line.strip()] or ["no reason"]
        return next((line for line in reversed(lines) if "Error" in line or "Exception" in line), lines[-1])

    def _end_mlflow(self) -> None:
        for number, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, GRACE)):
            for pid, _ in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
            end = time.monotonic() + seconds
            while any(self.processes()) and time.monotonic() < end:
                time.sleep(0.1)

    def processes(self) -> Iterator[tuple[int, int]]:
        """Process and port of everything that `start` of this folder started and that lives."""
        for path in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):  # of another user, or just gone
                for item in path.read_bytes().split(b"\0"):
                    name, _, value = os.fsdecode(item).partition("=")
                    port, _, folder = value.partition(" ")
                    if name == MARK and folder == str(self.folder):
                        yield int(path.parent.name), int(port)

    @staticmethod
    def _taken(port: int) -> bool:
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                return True
        return False


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(prog="python -P -m sweeps.tracking.server", description=__doc__.partition("\n")[0])
    p.add_argument("action", choices=["start", "status", "stop"])
    p.add_argument("folder", type=Path, metavar="DIR", help="a folder on a local disk, for this server alone")
    p.add_argument("--port", type=int, default=5000, help="on 127.0.0.1 (default: 5000)")
    p.add_argument("--install", action="store_true", help="install Debian's package postgresql if missing (root)")
    p.add_argument("--database-only", action="store_true", help="start PostgreSQL without MLflow, to restore, upgrade")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0 done, 2 bad input, 3 (status) not all of it runs."""
    return answered(lambda: _act(parser().parse_args(argv)))


def _act(options: argparse.Namespace) -> int:
    server = TrackingServer(options.folder)
    if options.action == "start":
        server.folder.mkdir(parents=True, exist_ok=True)
    if options.action != "status" and server.folder.exists():
        with server.alone():
            _start_or_stop(server, options)
    well, state = server.status()
    print(state)
    return 3 if options.action == "status" and not well else 0


def _start_or_stop(server: TrackingServer, options: argparse.Namespace) -> None:
    if options.action == "stop":
        server.stop()
        return
    if options.install:
        install()
    if options.database_only:
        server.start_database()
    else:
        server.start(options.port)


if __name__ == "__main__":
    sys.exit(run_command(main))
