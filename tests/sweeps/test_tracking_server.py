"""MLflow servers as a team has them, and everything that can happen to them while a sweep is sent."""

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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.storage.record_log import read_trials
from sweeps.tracking import mlflow_mirror, postgres, sync
from sweeps.tracking.server import TrackingServer, main
from sweeps.tracking.uri import default_uri, reachable
from tests.faults.ledger import LEDGER
from tests.sweeps.conftest import Done
from tests.sweeps.mirrored import Sweep, trial
from tests.sweeps.tiny import science, start, write_config
from tests.sweeps.tracking_store import Store, start_sync, wait_for
from unlearn_core.checks import InputError

pytestmark = pytest.mark.timeout(600)  # a server takes 10 s to start, and longer beside other work
MANY = [trial(n, f"study {n % 3}", stage="confirmation" if n > 20 else "tuning") for n in range(24)]


class Server:
    """A running server of either kind, its store, and how it is killed and started again."""

    def __init__(self, address: str, store: Store, pids: Callable[[], list[int]], again: Callable[[], Any]) -> None:
        self.address, self.store, self.pids, self.again = address, store, pids, again

    def signal(self, number: signal.Signals) -> None:
        for pid in self.pids():
            os.kill(pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def team() -> Iterator[TrackingServer]:
    """The server of `python -P -m sweeps.tracking.server`, in a folder that PostgreSQL's user may pass."""
    pytest.importorskip("psycopg", reason="no psycopg: the extra postgres is not installed")
    if not any(postgres.VERSIONS.glob("*/bin/initdb")):
        pytest.skip("no PostgreSQL: Debian's package postgresql is not installed, which needs root")
    folder = Path(tempfile.mkdtemp(prefix="team-"))
    server = TrackingServer(folder)
    server.start(free_port())
    yield server
    server.stop()
    shutil.rmtree(folder)


@pytest.fixture
def on_postgres(team: TrackingServer) -> Server:
    address = team.start(free_port())
    store = Store(team.postgres.uri, passfile=str(team.password))
    port = int(address.rpartition(":")[2])
    return Server(address, store, lambda: [pid for pid, _ in team.processes()], lambda: team.start(port))


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[Server]:
    uri, port = default_uri(tmp_path / "store"), free_port()
    place = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--backend-store-uri", uri]
    command = [sys.executable, "-m", "mlflow", "server", *place, "--artifacts-destination", str(tmp_path / "files")]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    running: list[subprocess.Popen[bytes]] = []

    def again() -> None:
        out = subprocess.DEVNULL
        running.append(subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True))
        wait_for(lambda: reachable(address) is None, 120)

    def pids() -> list[int]:
        groups = {int(path.name): path / "stat" for path in Path("/proc").glob("[0-9]*")}
        return [pid for pid, stat in groups.items() if group(stat) == running[-1].pid]

    address = f"http://127.0.0.1:{port}"
    again()
    yield Server(address, Store(uri), pids, again)
    for process in running:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def group(stat: Path) -> int:
    """Process group in a file /proc/PID/stat; 0 if the process is gone or dead."""
    try:
        state, _, number, *_ = stat.read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if state == "Z" else int(number)


def made(tmp_path: Path, server: Server, name: str) -> Sweep:
    sweep = Sweep(tmp_path, name, server.address)
    sweep.write(MANY)
    return sweep


def disturbed(sweep: Sweep, server: Server, runs: int, fault: Callable[[], Any]) -> tuple[int, str]:
    """Start a sync and cause the fault once the store has this many runs; returns exit code and errors."""
    process = start_sync(sweep.folder, server.address)
    wait_for(lambda: server.store.count(sweep.name) >= runs)
    fault()
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


@pytest.mark.slow
def test_a_real_sweep_arrives_trial_by_trial(done: Done, tmp_path: Path, on_postgres: Server) -> None:
    shutil.copytree(done.dir, tmp_path / "sweep")
    (tmp_path / "sweep" / "sweep.json").write_text('{"name": "real"}')
    report = sync.sync(tmp_path / "sweep", on_postgres.address)
    assert report.new == report.total == len(done.trials)
    on_postgres.store.assert_has(done.dir, "real")
    assert sync.sync(tmp_path / "sweep", on_postgres.address).new == 0


@pytest.mark.slow
@pytest.mark.parametrize("names", [("one", "two"), ("same", "same")], ids=["two names", "one name"])
def test_two_sweeps_at_once(tmp_path: Path, on_postgres: Server, names: tuple[str, str]) -> None:
    sweeps = []
    for place, name in enumerate(names):
        (tmp_path / str(place)).mkdir()
        sweeps.append(made(tmp_path / str(place), on_postgres, name))
    processes = [start_sync(sweep.folder, on_postgres.address) for sweep in sweeps]
    for process in processes:
        assert process.communicate(timeout=300)[1] == ""
        assert process.returncode == 0
    if names[0] != names[1]:
        for sweep in sweeps:
            on_postgres.store.assert_has(sweep.folder, sweep.name)
    else:
        assert on_postgres.store.count("same") == 2 * (1 + 3 + len(MANY))


def test_the_same_experiment_made_a_moment_earlier(tmp_path: Path) -> None:
    uri = default_uri(tmp_path)
    client = mlflow_mirror.connect(uri)

    class Late:
        """It looks before the other sweep makes the experiment."""

        looked = 0

        def __getattr__(self, name: str) -> Any:
            return getattr(client, name)

        def get_experiment_by_name(self, name: str) -> Any:
            self.looked += 1
            return client.get_experiment_by_name(name) if self.looked > 1 else None

    experiment = client.create_experiment("raced")
    assert sync._experiment(Late(), "raced", uri) == experiment


def test_a_repeated_request_leaves_no_second_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = Sweep(tmp_path, "repeated", default_uri(tmp_path))
    sweep.write(MANY[:2])
    client = mlflow_mirror.connect(sweep.uri)
    create = client.create_run
    monkeypatch.setattr(client, "create_run", lambda *args, **kwargs: [create(*args, **kwargs) for _ in "12"][1])
    monkeypatch.setattr(sync, "connect", lambda uri: client)
    sweep.sync()
    Store(sweep.uri).assert_has(sweep.folder, "repeated")


@pytest.mark.slow
def test_two_sweeps_meet_an_empty_database_file(tmp_path: Path) -> None:
    uri = default_uri(tmp_path / "store")
    sweeps = [Sweep(tmp_path, name, uri) for name in ("one", "two")]
    for sweep in sweeps:
        sweep.write(MANY[:3])
    for process in [start_sync(sweep.folder, uri) for sweep in sweeps]:
        errors = process.communicate(timeout=300)[1]
        assert (process.returncode, errors) == (0, "")
    for sweep in sweeps:
        Store(uri).assert_has(sweep.folder, sweep.name)


@pytest.mark.slow
@pytest.mark.parametrize(("store", "moments"), [("on_postgres", (6, 16)), ("on_sqlite", (11,))])
def test_server_killed_while_a_sweep_is_sent(
    tmp_path: Path, store: str, moments: tuple[int, ...], request: pytest.FixtureRequest
) -> None:
    server = request.getfixturevalue(store)
    sweep = made(tmp_path, server, f"killed {store}")
    for runs in moments:
        code, errors = disturbed(sweep, server, runs, server.kill)
        assert code == 1
        assert errors.startswith("tracking: ") and errors.count("\n") == 1
        server.again()
    assert sweep.sync().new > 0
    server.store.assert_has(sweep.folder, sweep.name)
    LEDGER.add("MLflow server killed", tried=len(moments), lost=0, repeated=0, equal=True)


@pytest.mark.slow
def test_database_killed_while_a_sweep_is_sent(tmp_path: Path, team: TrackingServer, on_postgres: Server) -> None:
    sweep = made(tmp_path, on_postgres, "database killed")

    def crash() -> None:
        pid = int((team.postgres.folder / "postmaster.pid").read_text().partition("\n")[0])
        os.kill(pid, signal.SIGKILL)
        team.start(0)  # a sync may notice nothing but a late answer

    disturbed(sweep, on_postgres, 15, crash)
    sweep.sync()
    on_postgres.store.assert_has(sweep.folder, sweep.name)


@pytest.mark.slow
def test_hanging_server_is_given_up(tmp_path: Path, on_postgres: Server) -> None:
    sweep = made(tmp_path, on_postgres, "hanging")
    hung: list[float] = []

    def hang() -> None:
        on_postgres.signal(signal.SIGSTOP)
        hung.append(time.monotonic())

    try:
        code, errors = disturbed(sweep, on_postgres, 15, hang)
        assert code == 1
        assert time.monotonic() - hung[0] < 60  # two attempts of 5 s, on a machine with other work
        assert errors.startswith("tracking: ") and errors.count("\n") == 1
        began = time.monotonic()
        with pytest.raises(sync.TrackingError, match="does not answer|no answer"):
            sweep.sync()
        assert time.monotonic() - began < 6
    finally:
        on_postgres.signal(signal.SIGCONT)
    sweep.sync()
    on_postgres.store.assert_has(sweep.folder, sweep.name)


@pytest.mark.slow
def test_late_answers_leave_no_second_runs(tmp_path: Path, on_postgres: Server) -> None:
    """The client repeats what was not answered in 5 s; the server, once it goes on, does both."""
    sweep = made(tmp_path, on_postgres, "late")

    def pause() -> None:
        on_postgres.signal(signal.SIGSTOP)
        time.sleep(7)
        on_postgres.signal(signal.SIGCONT)

    assert disturbed(sweep, on_postgres, 15, pause) == (0, "")
    on_postgres.store.assert_has(sweep.folder, sweep.name)


@pytest.mark.slow
def test_a_sweep_ends_as_always_beside_a_hanging_server(done: Done, tmp_path: Path, on_postgres: Server) -> None:
    config, out = write_config(tmp_path, name="tiny"), tmp_path / "out"
    options = ["--config", config, "--out", out, "--inline", "--tracking-uri", on_postgres.address]
    process = start(*options)
    try:
        wait_for((out / "tiny" / ".running").exists)
        on_postgres.signal(signal.SIGSTOP)
        _, errors = process.communicate(timeout=300)
    finally:
        on_postgres.signal(signal.SIGCONT)
    assert process.returncode == 0
    assert "send the rest: unlearn sync " in errors
    assert science(read_trials(out / "tiny")) == science(done.trials)
    again = start(*options, "--sync-mlflow")
    assert again.communicate(timeout=300)[1] == ""
    on_postgres.store.assert_has(out / "tiny", "tiny")


@pytest.mark.slow
def test_passwords_stay_where_they_are(
    tmp_path: Path, team: TrackingServer, on_postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cr3t-of-the-proxy")
    secrets = [team.password.read_text().rpartition(":")[2].strip(), "s3cr3t-of-the-proxy", "s3cr3t-in-the-address"]
    sweep = made(tmp_path, on_postgres, "secrets")
    address = on_postgres.address.replace("://", "://me:s3cr3t-in-the-address@")
    process = start_sync(sweep.folder, address)
    wait_for(lambda: on_postgres.store.count("secrets") > 5)
    seen = command_lines()
    seen += [part.encode() for part in process.communicate(timeout=300)]
    assert process.returncode == 0
    files = [
        *tmp_path.rglob("*"),
        team.log,
        team.postgres.folder / "server.log",
        *(team.folder / "artifacts").rglob("*"),
    ]
    seen += [path.read_bytes() for path in files if path.is_file()]
    for table in ("params", "tags", "experiments", "runs"):
        seen.append(str(on_postgres.store.rows(f"SELECT * FROM {table}")).encode())
    assert any(b"mlflow" in text for text in seen)
    for secret in secrets:
        assert len(secret) > 15
        assert not [text[:300] for text in seen if secret.encode() in text]
    assert team.password.stat().st_mode & 0o777 == 0o600
    assert team.log.stat().st_mode & 0o077 == 0


def command_lines() -> list[bytes]:
    """Of all processes that live long enough to be read."""
    seen = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            seen.append(path.read_bytes())
    return seen


@pytest.mark.slow
def test_start_again_status_and_stop(
    team: TrackingServer, on_postgres: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    before = on_postgres.pids()
    assert main(["start", str(team.folder), "--port", "1"]) == 0  # runs: the port is not asked for
    assert on_postgres.pids() == before
    assert main(["status", str(team.folder)]) == 0
    assert f"PostgreSQL runs, MLflow answers at {on_postgres.address}" in capsys.readouterr().out
    assert listening(on_postgres.pids()) == {"127.0.0.1"}
    assert main(["stop", str(team.folder)]) == 0
    assert not on_postgres.pids()
    assert main(["status", str(team.folder)]) == 3
    assert "PostgreSQL stopped, MLflow stopped" in capsys.readouterr().out
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert main(["start", str(team.folder), "--port", str(other.getsockname()[1])]) == 2
    assert "is in use" in capsys.readouterr().err
    on_postgres.again()
    assert on_postgres.store.rows("SELECT count(*) FROM experiments")[0][0] > 0
    os.kill(min(on_postgres.pids()), signal.SIGKILL)  # the first process; its workers live on and keep the port
    on_postgres.again()
    assert reachable(on_postgres.address) is None


def listening(pids: list[int]) -> set[str]:
    """IPv4 addresses on which processes wait for connections; fails on IPv6."""
    sockets = {os.readlink(link) for pid in pids for link in Path(f"/proc/{pid}/fd").iterdir()}
    found = set()
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{family}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                assert family == "tcp"
                found.add(socket.inet_ntoa(bytes.fromhex(fields[1].partition(":")[0])[::-1]))
    return found


@pytest.mark.parametrize(
    ("made_by", "problem"), [(None, "PostgreSQL is not installed"), ("9.6", "PostgreSQL 9.6, which made ")]
)
def test_missing_programs_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    made_by: str | None,
    problem: str,
) -> None:
    monkeypatch.setattr(postgres, "VERSIONS", tmp_path / "none")
    if made_by:
        (tmp_path / "team" / "postgres").mkdir(parents=True)
        (tmp_path / "team" / "postgres" / "PG_VERSION").write_text(f"{made_by}\n")
    assert main(["start", str(tmp_path / "team")]) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {problem}") and errors.count("\n") == 1


def test_installing_needs_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres.os, "geteuid", lambda: 1000)
    with pytest.raises(InputError, match="needs root"):
        postgres.install()


def test_a_long_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too long"):
        TrackingServer(tmp_path / ("x" * 100))
