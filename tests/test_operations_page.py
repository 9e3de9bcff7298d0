"""Every command of docs/operations.md is run as it stands there, or checked as far as that goes without a cluster."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from ray.scripts.scripts import cli

from sweeps.commands.run import main
from sweeps.storage.s3 import S3Path
from tests.sweeps.job_head import PATIENCE, Head, copy_sources, head, link_project  # noqa: F401 - a fixture
from tests.sweeps.object_store import bucket, endpoint  # noqa: F401 - fixtures
from tests.sweeps.tiny import ROOT, write_config

PAGE = (ROOT / "docs" / "operations.md").read_text()
LOCAL = (".venv/bin/", "nohup", "grep")
JOBS = ("export", "ray job")
UNRUN = ("ray dashboard", "ray exec", "ray rsync-down", "rsync", "kubectl")
"""They need a cluster or a second machine."""


def unfinished(text: str) -> bool:
    """Whether a command goes on in the next line."""
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return True
    return text.endswith("\\")


def read_commands() -> list[str]:
    found, begun = [], ""
    for line in "".join(re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)).splitlines():
        begun += line
        if unfinished(begun):
            begun += "\n"
        else:
            found.append(begun)
            begun = ""
    return found


COMMANDS = read_commands()


def of(*beginnings: str, remote: bool = False) -> list[str]:
    return [command for command in COMMANDS if command.startswith(beginnings) and ("s3://" in command) == remote]


def run_all(commands: list[str], folder: Path, environment: dict[str, str]) -> str:
    """What the commands print, given one after the other to a shell that stops at the first that fails."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    one_by_one = [command + "\nwait $!" if command.endswith("&") else command for command in commands]
    script = "\n".join(["set -euo pipefail", *one_by_one])
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment | {"PATH": path}, capture_output=True, text=True,
        timeout=2 * PATIENCE,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The project as a user has it, with a configuration."""
    folder = tmp_path / "project"
    link_project(folder)
    write_config(folder, name="my-sweep").rename(folder / "my-sweep.yaml")
    return folder


def plain_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def test_every_command_is_run_or_said_not_to_be() -> None:
    kinds = [of(*LOCAL), of(*LOCAL, remote=True), of(*JOBS), *map(of, UNRUN)]
    assert all(kinds)
    assert sorted(itertools.chain(*kinds)) == sorted(COMMANDS)
    tried = PAGE.partition("## What was tried")[2]
    assert all(f"`{name}`" in tried for name in UNRUN)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(900)
def test_the_commands_for_one_machine(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = run_all(of(*LOCAL), project, plain_environment())
    assert "time here" in said
    assert "report: " in said
    assert re.search(r"^finished: \d+ trials, 0 failed$", said, re.M)
    assert re.search(r"^none of \d+ trials failed$", said, re.M)
    assert '"command": "unlearn run --config my-sweep.yaml"' in said
    assert "all trials are done already" in (project / "my-sweep.log").read_text()
    assert (project / "my-sweep.tar.gz").stat().st_size > 1000
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    monkeypatch.chdir(project)
    exec(compile(code, "operations.md", "exec"), {})


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1200)
def test_the_commands_for_jobs(head: Head, tmp_path: Path) -> None:  # noqa: F811
    sources, out = tmp_path / "sources", tmp_path / "out"
    copy_sources(sources)
    config = write_config(sources, name="my-sweep").rename(sources / "my-sweep.yaml")
    changes = {
        "http://127.0.0.1:8265": head.environment["RAY_API_SERVER_ADDRESS"],
        "/srv/sweeps": str(out),
        "--preset quick": f"--config {config} --name quick",  # a preset takes minutes
    }

    def here(command: str) -> str:
        for old, new in changes.items():
            command = command.replace(old, new)
        return command

    commands = [*of(*JOBS), "ray job logs --follow mine-1"]
    said = run_all([here(command) for command in commands], sources, head.environment)
    assert "quick-1" in said and said.count("report: ") >= 2
    (status,) = (shlex.split(command)[3] for command in of("ray exec"))
    assert "finished: " in run_all([here(status)], tmp_path, head.environment)
    for name in ("quick", "my-sweep"):
        assert (out / name / "report" / "index.html").is_file()


@pytest.mark.slow
def test_the_commands_for_a_bucket(
    bucket: S3Path,  # noqa: F811
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(project)
    config = write_config(project, name="quick")
    assert main(["--config", str(config), "--out", f"{bucket.url}/sweeps", "--inline", "--no-tracking"]) == 0
    commands = [command.replace("s3://my-bucket", bucket.url) for command in of(*LOCAL, remote=True)]
    run_all(commands, project, plain_environment())
    assert (project / "quick.tar.gz").stat().st_size > 1000


@pytest.mark.parametrize("line", of("ray dashboard", "ray exec", "ray rsync-down"))
def test_ray_understands_what_needs_a_cluster(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    context = cli.commands[name].make_context(name, arguments)
    assert (ROOT / context.params["cluster_config_file"]).is_file()


def test_kubectl_is_told_what_the_manifest_says() -> None:
    manifests = {document["kind"]: document for document in yaml.safe_load_all((ROOT / "kuberay.yaml").read_text())}
    job = manifests["RayJob"]["metadata"]["name"]
    told = {words[1]: words[2:] for words in map(shlex.split, of("kubectl"))}
    assert (ROOT / told["apply"][1]).is_file()
    assert told["logs"][-1] == f"job/{job}"
    assert f"kubectl delete rayjob {job}" in COMMANDS
    (overrides,) = (word.partition("=")[2] for word in told["run"] if word.startswith("--overrides="))
    pod = json.loads(overrides)["spec"]
    (container,) = pod["containers"]
    group = manifests["RayJob"]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    assert container["image"] == group["containers"][0]["image"]
    assert container["volumeMounts"] == group["containers"][0]["volumeMounts"]
    assert pod["volumes"] == group["volumes"]
    assert told["cp"][0] == f"{told['run'][0]}:/srv/sweeps/quick"
