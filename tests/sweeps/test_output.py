"""Whoever reads a command's output, or nobody: it does its work, says nothing of its streams, and ends as it should."""

from __future__ import annotations

import itertools
import json
import os
import shlex
import socket
import subprocess
import sys
import threading
from http.server import HTTPServer
from pathlib import Path
from typing import Any

import pytest

from sweeps.tracking.uri import reachable
from tests.sweeps.http_answer import Answer
from tests.sweeps.tiny import ROOT, command, compacted, run_fresh, tiny, write_config

ASCII = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("Größe ±") / "Ergebnisse"
    run_fresh(tiny(), folder)
    compacted(folder / "tiny")
    content = {"name": "tiny", "spec": tiny().to_dict()}
    (folder / "tiny" / "sweep.json").write_text(json.dumps(content))
    return folder


def commands(out: Path) -> dict[str, list[str]]:
    start, folder = [sys.executable, "-P", "-m"], str(out / "tiny")
    return {
        "list": command("--list"),
        "help": command("--help"),
        "report": [*start, "analysis.report", folder],
        "section": [*start, "analysis.page_section", folder],
        "status": [*start, "sweeps", "status", folder],
        "failures": [*start, "sweeps", "failures", folder],
        "scan": [*start, "sweeps.commands.scan", "--list"],
        "hypotheses": [*start, "sweeps.hypotheses", "--help"],
        "nothing there": [*start, "sweeps", "status", str(out / "gone ±")],
        "bad input": command("--set", "recipe.epochs=±"),
    }


CODES = {"nothing there": 2, "bad input": 2}


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=280
    )


WAYS = {
    "cut": "set -o pipefail; {} | true",
    "closed": "{} >&- 2>&-",
    "full": "{} > /dev/full",
    "ascii": "PYTHONIOENCODING=ascii LC_ALL=C {}",
}


def cases() -> list[Any]:
    """All commands in all ways. The slow run tries every command in one way, and every way several times; the rest is
    for the night, as each is a process that imports much."""
    pairs = itertools.product(enumerate(commands(Path())), enumerate(WAYS))
    marks = {True: pytest.mark.slow, False: pytest.mark.nightly}
    return [pytest.param(name, WAYS[way], id=f"{name}-{way}", marks=marks[i % 4 == j]) for (i, name), (j, way) in pairs]


@pytest.mark.timeout(300)  # of a busy machine
@pytest.mark.parametrize("name, way", cases())
def test_output_that_cannot_be_written_changes_nothing(name: str, way: str, out: Path) -> None:
    done = shell(way.format(shlex.join(commands(out)[name])))
    assert done.returncode == CODES.get(name, 0), done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("where", ["| true", ">&- 2>&-", "2>&1 | head -c 1"])
def test_a_sweep_that_nobody_listens_to_is_done(where: str, tmp_path: Path) -> None:
    words = shlex.join(command("--config", write_config(tmp_path), "--out", tmp_path, "--inline"))
    done = shell(f"set -o pipefail; {words} {where}", **ASCII)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "tiny" / "report" / "index.html").is_file()
    assert "new of" in (tmp_path / "tiny" / "tracking.log").read_text()


def test_servers_on_this_machine_are_asked_without_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        proxy = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.setenv("no_proxy", "example.org")
    monkeypatch.setenv("NO_PROXY", "")
    server = HTTPServer(("127.0.0.1", 0), Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for host in ("127.0.0.1", "localhost"):
        assert reachable(f"http://{host}:{server.server_port}") is None
    server.shutdown()
    assert os.environ["no_proxy"].split(",")[0] == "example.org"
