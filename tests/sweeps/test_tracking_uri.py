"""The default store, and the quick check that never waits long and never names a password."""

from __future__ import annotations

import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from sweeps import tracking_uri
from sweeps.tracking_uri import default_uri, reachable


class Answer(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


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
        ("databricks://profile", None),
    ],
)
def test_reachable_names_the_problem(uri: str, problem: str | None) -> None:
    found = reachable(uri)
    assert found is None if problem is None else problem in str(found)
    assert "s3c" not in str(found)


def test_naming_the_default_store_makes_its_folder_and_no_file(tmp_path: Path) -> None:
    uri = default_uri(tmp_path / "new" / "out")
    assert reachable(uri) is None
    assert list((tmp_path / "new" / "out").iterdir()) == []
    (tmp_path / "file").write_text("")
    assert reachable(default_uri(tmp_path / "file" / "out")) is not None


def test_a_hanging_server_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking_uri, "PATIENCE", 0.3)
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        assert reachable(f"http://127.0.0.1:{hanging.getsockname()[1]}") is not None
    assert time.monotonic() - began < 2


def test_addresses_are_shown_without_passwords() -> None:
    assert tracking_uri.page("https://me:pw@host/a/", "7") == "https://host/a/#/experiments/7/runs"
    assert tracking_uri.without_secrets("no route to http://me:pw@host/x") == "no route to http://host/x"
    assert (
        tracking_uri.without_secrets("http://me:p@w@host/x@y or http://host/a@b")
        == "http://host/x@y or http://host/a@b"
    )
