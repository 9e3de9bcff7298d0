"""The default store, and the quick check that never waits long and never names a password."""

from __future__ import annotations

import shlex
import socket
import sqlite3
import subprocess
import threading
import time
from http.server import HTTPServer
from pathlib import Path

import pytest

from sweeps.commands.mirroring import Mirroring
from sweeps.commands.options import RunOptions
from sweeps.commands.run import main
from sweeps.commands.sync import main as sync
from sweeps.storage.local_copy import LocalCopy
from sweeps.tracking import uri
from sweeps.tracking.database import prepared
from sweeps.tracking.mlflow_mirror import DatabaseTables, connect
from sweeps.tracking.uri import artifact_root, default_uri, no_stray_folder, reachable, shown_command
from tests.sweeps.http_answer import Answer
from tests.sweeps.tiny import write_config


@pytest.mark.parametrize(("status", "problem"), [(200, None), (404, None), (403, "answers 403"), (503, "answers 503")])
def test_reachable_server(status: int, problem: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answer, "status", status)
    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.handle_request, daemon=True).start()
    found = reachable(f"http://me:secret@127.0.0.1:{server.server_port}/")
    server.server_close()
    assert found is None if problem is None else problem in str(found)
    assert "secret" not in str(found)


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("sqlite:////no/such/folder/mlflow.db", "no folder /no/such/folder"),
        ("sqlite://", "give a file"),
        ("mlruns", "plain folders"),
        ("file:///tmp/mlruns", "plain folders"),
        ("http://", "does not answer"),
        ("postgresql://user:s3cret@host/db", "write through a server"),
        ("postgresql+psycopg://host/db?user=u&password=s3cret", "write through a server"),
        ("http://me:s3c/ret@host", "write / as %2F"),
        ("foo://me:s3cret@host", "MLflow knows none of this kind; use sqlite:"),
        ("databricks://profile", None),
    ],
)
def test_reachable_names_the_problem(uri: str, problem: str | None) -> None:
    found = reachable(uri)
    assert found is None if problem is None else problem in str(found)
    assert "s3c" not in str(found)


def test_sync_to_an_unknown_kind_of_store_is_one_line_and_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sweep.json").write_text("{}")
    assert sync([str(tmp_path), "--tracking-uri", "foo://x"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --tracking-uri: tracking store foo://...: MLflow knows none of this kind; use ")
    assert said.count("\n") == 1


def test_naming_the_default_store_makes_its_folder_and_no_file(tmp_path: Path) -> None:
    uri = default_uri(tmp_path / "new" / "out")
    assert reachable(uri) is None
    assert list((tmp_path / "new" / "out").iterdir()) == []
    (tmp_path / "file").write_text("")
    assert reachable(default_uri(tmp_path / "file" / "out")) is not None


def test_a_hanging_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uri, "PATIENCE", 0.3)
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        assert reachable(f"http://127.0.0.1:{hanging.getsockname()[1]}") is not None
    assert time.monotonic() - began < 3  # the usual patience


def test_addresses_are_shown_without_passwords() -> None:
    assert uri.page("https://me:pw@host/a/", "7") == "https://host/a/#/experiments/7/runs"
    assert uri.without_secrets("no route to http://me:pw@host/x") == "no route to http://host/x"
    assert uri.without_secrets("http://me:p@w@host/x@y or http://host/a@b") == "http://host/x@y or http://host/a@b"


ODD_NAMES = ["a b", "a%20b", "50%", "a#b", "Ergebnisse für Zoë", "what?", "a&b=c", "it's", "a;b", "a:b@c", "$HOME"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD_NAMES)
def test_the_database_is_where_the_folder_is(name: str, tmp_path: Path) -> None:
    out = tmp_path / name
    uri = default_uri(out)
    assert reachable(uri) is None
    with prepared(uri, DatabaseTables()), no_stray_folder(uri):
        client = connect(uri)
    experiment = client.create_experiment("x", artifact_location=artifact_root(uri))
    client.log_text(client.create_run(experiment).info.run_id, "text", "file.txt")
    assert {path.name for path in tmp_path.iterdir()} == {name}, "and nothing is left beside it"
    (file,) = out.rglob("file.txt")
    assert file.is_relative_to(out / "mlartifacts")
    with sqlite3.connect(out / "mlflow.db") as database:
        assert database.execute("select name from experiments where name = 'x'").fetchall()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_printed_commands_survive_a_shell(name: str, tmp_path: Path) -> None:
    words = ["mlflow", "server", "--backend-store-uri", default_uri(tmp_path / name)]
    assert shlex.split(shown_command(words)) == words
    echoed = subprocess.run(["bash", "-c", f"printf '%s\\n' {shown_command(words)}"], capture_output=True, text=True)
    assert echoed.stdout.splitlines() == words


SECRET = "s3cr3t"
LOGINS = [
    f"http://me:{SECRET}@host:5000/a",
    f"https://{SECRET}@host/a",
    f"https://host/a?password={SECRET}",
    f"https://host/a?user=me&token={SECRET}&x=1",
    f"https://host/a?api_key={SECRET} b",
    f"https://host/a?password=x@{SECRET}",
    f"https://host/a#access_token={SECRET}",
    f"http://me:p?{SECRET}@host/a",
    f"http://me:p/{SECRET}@host/a",
    f"http://me:a'b {SECRET}@host/a",
    f"postgresql://host/db?user=me&password={SECRET}",
    f"mysql+pymysql://me:{SECRET}@host/db",
]


@pytest.mark.parametrize("uri", LOGINS)
@pytest.mark.parametrize("form", ["--tracking-uri {}", "--tracking-uri={}"])
def test_commands_are_kept_without_secrets(uri: str, form: str) -> None:
    words = form.partition(" ")[0].format(uri), *([uri] if " " in form else [])
    assert SECRET not in shown_command(["python", "x.py", *words])
    assert "--out '/a b?c=d'" in shown_command([*words, "--out", "/a b?c=d"]), "other words stay"


@pytest.mark.slow
def test_no_file_of_a_sweep_has_the_secrets_of_its_tracking_uri(tmp_path: Path) -> None:
    config, out = write_config(tmp_path), tmp_path / "out"
    uri = f"http://me:{SECRET}@127.0.0.1:9/x?password={SECRET}&token={SECRET}"
    assert main(["--config", str(config), "--out", str(out), "--inline", "--tracking-uri", uri]) == 0
    files = [path for path in (out / "tiny").rglob("*") if path.is_file()]
    assert out / "tiny" / "report" / "index.html" in files
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_messages_name_no_query() -> None:
    told = f"Max retries exceeded with url: /api?password={SECRET} (Caused by http://host/?token={SECRET})"
    assert uri.without_secrets(told) == "Max retries exceeded with url: /api (Caused by http://host/)"
    assert uri.page(f"https://host/a/?token={SECRET}", "7") == "https://host/a/#/experiments/7/runs"


def test_the_tracking_uri_of_the_environment_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = default_uri(tmp_path / "elsewhere")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", wanted)
    assert mirror_of(tmp_path).uri == wanted
    assert mirror_of(tmp_path, tracking_uri="http://host").uri == "http://host"
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert mirror_of(tmp_path).uri == default_uri(tmp_path / "out")


def mirror_of(folder: Path, **options: str) -> Mirroring:
    return Mirroring(LocalCopy(folder / "out" / "tiny"), RunOptions.of(out=folder / "out", **options))
