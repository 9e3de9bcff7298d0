"""MLflow servers as a team has them, and everything that can happen to them while a sweep is sent."""

from __future__ import annotations

import contextlib
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sweeps.storage.record_log import read_trials
from sweeps.tracking import mlflow_mirror, sync
from sweeps.tracking.uri import default_uri
from tests.faults.ledger import LEDGER
from tests.sweeps.conftest import Done
from tests.sweeps.mirrored import Sweep, trial
from tests.sweeps.mlflow_servers import PROGRAMS, MlflowServer, Postgres
from tests.sweeps.tiny import science, start, write_config
from tests.sweeps.tracking_store import Store, start_sync, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # a server takes 10 s to start, and longer beside other work
MANY = [trial(n, f"study {n % 3}", stage="confirmation" if n > 20 else "tuning") for n in range(24)]


class Team(NamedTuple):
    """A server with its PostgreSQL."""

    postgres: Postgres
    server: MlflowServer


@pytest.fixture(scope="module")
def team() -> Iterator[Team]:
    if not PROGRAMS:
        pytest.skip("no PostgreSQL: Debian's package postgresql is not installed")
    with tempfile.TemporaryDirectory(prefix="team-", dir="/tmp") as name:  # its user may pass through /tmp
        folder = Path(name)
        postgres = Postgres(folder)
        postgres.start()
        server = MlflowServer(postgres.uri, folder)
        try:
            yield Team(postgres, server)
        finally:
            server.kill()
            postgres.stop()


@pytest.fixture
def on_postgres(team: Team) -> MlflowServer:
    team.server.start()
    return team.server


@pytest.fixture
def on_sqlite(tmp_path: Path) -> Iterator[MlflowServer]:
    server = MlflowServer(default_uri(tmp_path / "store"), tmp_path)
    server.start()
    yield server
    server.kill()


def made(tmp_path: Path, server: MlflowServer, name: str) -> Sweep:
    sweep = Sweep(tmp_path, name, server.address)
    sweep.write(MANY)
    return sweep


def disturbed(sweep: Sweep, server: MlflowServer, runs: int, fault: Callable[[], Any]) -> tuple[int, str]:
    """Start a sync and cause the fault once the store has this many runs; returns exit code and errors."""
    process = start_sync(sweep.folder, server.address)
    wait_for(lambda: server.store.count(sweep.name) >= runs)
    fault()
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def test_a_real_sweep_arrives_trial_by_trial(done: Done, tmp_path: Path, on_postgres: MlflowServer) -> None:
    shutil.copytree(done.dir, tmp_path / "sweep")
    (tmp_path / "sweep" / "sweep.json").write_text('{"name": "real"}')
    report = sync.sync(tmp_path / "sweep", on_postgres.address)
    assert report.new == report.total == len(done.trials)
    on_postgres.store.assert_has(done.dir, "real")
    assert sync.sync(tmp_path / "sweep", on_postgres.address).new == 0


@pytest.mark.parametrize("names", [("one", "two"), ("same", "same")], ids=["two names", "one name"])
def test_two_sweeps_at_once(tmp_path: Path, on_postgres: MlflowServer, names: tuple[str, str]) -> None:
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


def test_two_sweeps_meet_an_empty_database_file(tmp_path: Path) -> None:
    uri = default_uri(tmp_path / "store")
    sweeps = [Sweep(tmp_path, name, uri) for name in ("one", "two")]
    for sweep in sweeps:
        sweep.write(MANY[:3])
    for process in [start_sync(sweep.folder, uri) for sweep in sweeps]:
        errors = process.communicate(timeout=300)[1]
        assert process.returncode == 0
        assert not errors or errors.endswith("waiting for it, at most 300 s\n")  # on a busy machine
    for sweep in sweeps:
        Store(uri).assert_has(sweep.folder, sweep.name)


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
        server.start()
    assert sweep.sync().new > 0
    server.store.assert_has(sweep.folder, sweep.name)
    LEDGER.add("MLflow server killed", tried=len(moments), lost=0, repeated=0, equal=True)


def test_database_killed_while_a_sweep_is_sent(tmp_path: Path, team: Team, on_postgres: MlflowServer) -> None:
    sweep = made(tmp_path, on_postgres, "database killed")

    def crash() -> None:
        team.postgres.kill()
        team.postgres.start()  # a sync may notice nothing but a late answer

    disturbed(sweep, on_postgres, 15, crash)
    sweep.sync()
    on_postgres.store.assert_has(sweep.folder, sweep.name)


def test_hanging_server_is_given_up(tmp_path: Path, on_postgres: MlflowServer) -> None:
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


def test_late_answers_leave_no_second_runs(tmp_path: Path, on_postgres: MlflowServer) -> None:
    """The client repeats what was not answered in 5 s; the server, once it goes on, does both."""
    sweep = made(tmp_path, on_postgres, "late")

    def pause() -> None:
        on_postgres.signal(signal.SIGSTOP)
        time.sleep(7)
        on_postgres.signal(signal.SIGCONT)

    assert disturbed(sweep, on_postgres, 15, pause) == (0, "")
    on_postgres.store.assert_has(sweep.folder, sweep.name)


def test_a_sweep_ends_as_always_beside_a_hanging_server(done: Done, tmp_path: Path, on_postgres: MlflowServer) -> None:
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


def test_passwords_stay_where_they_are(
    tmp_path: Path, on_postgres: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "s3cr3t-of-the-proxy")
    secrets = ["s3cr3t-of-the-proxy", "s3cr3t-in-the-address"]
    sweep = made(tmp_path, on_postgres, "secrets")
    address = on_postgres.address.replace("://", "://me:s3cr3t-in-the-address@")
    process = start_sync(sweep.folder, address)
    wait_for(lambda: on_postgres.store.count("secrets") > 5)
    seen = command_lines()
    seen += [part.encode() for part in process.communicate(timeout=300)]
    assert process.returncode == 0
    files = [*tmp_path.rglob("*"), on_postgres.log, *(on_postgres.folder / "artifacts").rglob("*")]
    seen += [path.read_bytes() for path in files if path.is_file()]
    for table in ("params", "tags", "experiments", "runs"):
        seen.append(str(on_postgres.store.rows(f"SELECT * FROM {table}")).encode())
    assert any(b"mlflow" in text for text in seen)
    for secret in secrets:
        assert not [text[:300] for text in seen if secret.encode() in text]


def command_lines() -> list[bytes]:
    """Of all processes that live long enough to be read."""
    seen = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            seen.append(path.read_bytes())
    return seen
