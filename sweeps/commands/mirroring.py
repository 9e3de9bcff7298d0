"""MLflow follows a sweep's records from a separate process; nothing that it does can stop the sweep."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from sweeps.commands.folders import only_driver
from sweeps.commands.options import RunOptions
from sweeps.execution.interruption import run_or_explain
from sweeps.launch import module_command
from sweeps.storage.errors import StorageError
from sweeps.storage.local_copy import LocalCopy
from sweeps.tracking.uri import default_uri, reachable, shown_command
from unlearn_core.checks import InputError

QUIET = 5.0  # seconds of waiting without a word
PATIENCE = 300.0  # seconds to wait at the end for the mirror; it can be completed later


class Mirroring:
    """The mirror of one sweep."""

    def __init__(self, replica: LocalCopy, options: RunOptions) -> None:
        self.replica, self.options, self.dir = replica, options, replica.dir
        self._uri = options.mlflow_uri

    @property
    def uri(self) -> str:
        """The tracking URI. By default that of a file beside the sweep, whose folder is made when it is asked for."""
        if self._uri is None:
            self._uri = default_uri(self.dir.parent)
        return self._uri

    def command(self) -> list[str]:
        """Sends what the store lacks."""
        return module_command("sweeps.tracking.sync", str(self.dir))

    @property
    def again(self) -> str:
        """What the user can type to send the rest."""
        given = ["--tracking-uri", self.options.tracking_uri] if self.options.tracking_uri else []
        return shown_command(["unlearn", "sync", str(self.replica.home), *given])

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Mirror while the body runs."""
        problem = reachable(self.uri) if self.options.tracking else None
        if problem:
            print(f"warning: MLflow: {problem}; the sweep goes on, send it later: {self.again}", file=sys.stderr)
        if problem or not self.options.tracking:
            yield
            return
        running = self.dir / ".running"
        running.write_text(str(os.getpid()))
        log = self.dir / "tracking.log"
        process = self._start(log)
        try:
            yield
        finally:
            running.unlink(missing_ok=True)  # it sends the rest and ends, waited for or not
        self._await(process, log)

    def sync(self) -> int:
        """Send what the tracking store is missing; returns an exit code. Raises InputError if there is no sweep."""
        self.replica.pull()
        if not (self.dir / "sweep.json").exists():
            raise InputError(f"there is no sweep in {self.replica.home}; run it first, or name the folder of another")
        problem = reachable(self.uri)
        if problem:
            raise InputError(f"--tracking-uri: {problem}")
        with contextlib.suppress(InputError, StorageError), only_driver(self.replica.home):
            (self.dir / ".running").unlink(missing_ok=True)  # left by a driver that was killed
        again = f"send the rest: {self.again}"
        return run_or_explain(
            self.command(), "MLflow has not got everything", again=again, environment=self._environment()
        )

    def print_page(self) -> None:
        """Where the trials can be looked at."""
        log = self.dir / "tracking.log"
        if not self.options.tracking or not log.exists():
            return
        page = log.read_text().rpartition(" shown at ")[2].strip()
        if "\n" in page or not page.startswith("http"):  # it did not get to the end
            return
        print(f"\nbrowse the trials: {page}")
        if not self.uri.startswith("http"):
            mlflow = str(Path(sys.executable).with_name("mlflow"))
            options = ["--host", "127.0.0.1", "--port", "5000"]
            server = shown_command([mlflow, "server", "--backend-store-uri", self.uri, *options])
            # without its job service the server starts in a third of the time; it imports nothing from this folder
            print(f"  after starting  PYTHONSAFEPATH=1 MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false {server}")

    def _start(self, log: Path) -> subprocess.Popen[bytes]:
        with open(log, "w") as file:
            return subprocess.Popen(
                [*self.command(), "--follow"],
                stdout=file,
                stderr=file,
                env=self._environment(),
                start_new_session=True,  # Ctrl-C is not for it
            )

    def _environment(self) -> dict[str, str]:
        """The URI may hold a password, and everybody on the machine can read command lines."""
        return os.environ | {"MLFLOW_TRACKING_URI": self.uri}

    def _await(self, process: subprocess.Popen[bytes], log: Path) -> None:
        code = _exit_code(process)
        lines = log.read_text(errors="replace").splitlines()
        for line in lines:
            if line.startswith("warning: "):  # of files that were set aside
                print(line, file=sys.stderr)
        if code:
            last = next((line for line in reversed(lines) if line.strip()), "without a word")
            reason = last.removeprefix("tracking: ")
            print(
                f"warning: MLflow has not got everything: {reason} ({log}); send the rest: {self.again}",
                file=sys.stderr,
            )


def _exit_code(process: subprocess.Popen[bytes]) -> int:
    """Of the mirror, which is waited for; one that takes too long is ended."""
    try:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=QUIET)
        if process.poll() is None:
            print(f"MLflow is sent the rest, which is waited for, at most {PATIENCE:g} s", file=sys.stderr)
        return process.wait(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.terminate()
        return -1
