"""What SECURITY.md promises: nothing unsafe is loaded, no secret is written, Ray asks for its token."""

from __future__ import annotations

import ast
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sweeps.commands.run import main
from sweeps.execution.ray_executor import RayExecutor, protect_local_ray
from sweeps.storage.artifacts import Artifact, ArtifactStore, _checksum
from tests.sweeps.tiny import start, write_config
from unlearn_core.checks import InputError
from unlearn_core.models import build_model
from unlearn_core.models.gpt2 import Gpt2

ROOT = Path(__file__).parents[1]
PACKAGES = ("unlearn_core", "sweeps", "analysis", "benchmarks")
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
UNSAFE_CALLS = {
    "torch.load",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "eval",
    "exec",
    "pd.read_pickle",
}


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path, ast.parse(path.read_text())


def test_no_source_loads_what_can_run_code() -> None:
    found = []
    for path, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {(node.module or "").partition(".")[0]}
            else:
                names = set()
            found += [(path.name, name) for name in names & UNSAFE_MODULES]
            if isinstance(node, ast.Call):
                found += unsafe_call(path, node)
    assert not found


def unsafe_call(path: Path, call: ast.Call) -> list[tuple[str, str]]:
    name = ast.unparse(call.func)
    options = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    bad = name in UNSAFE_CALLS or options.get("shell") == "True" or options.get("allow_pickle") == "True"
    if name == "np.load":
        bad = options.get("allow_pickle") != "False"
    return [(path.name, name)] if bad else []


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.trace}",)


@pytest.fixture
def evil(tmp_path: Path) -> Iterator[bytes]:
    """Bytes that leave a trace when anything unpickles them."""
    trace = tmp_path / "trace"
    yield pickle.dumps(Evil(trace))
    assert not trace.exists()


def test_a_pickle_in_the_artifact_store_is_not_run_even_with_a_right_checksum(evil: bytes, tmp_path: Path) -> None:
    store = ArtifactStore(tmp_path / "store")
    sound = Artifact({"w": torch.ones(2)}, {"a": 1})
    store.get("model", {"r": 1}, lambda: sound)
    (meta_path,) = (tmp_path / "store").glob("model/*/meta.json")
    meta_path.with_name("tensors.safetensors").write_bytes(evil)
    meta = json.loads(meta_path.read_text())
    meta_path.write_text(json.dumps(meta | {"sha256": _checksum(evil, meta["recipe"], meta["content"])}))
    again = store.get("model", {"r": 1}, lambda: sound)
    assert torch.equal(again.tensors["w"], torch.ones(2))


def test_a_pickle_among_pretrained_weights_is_refused(evil: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(evil)
    with pytest.raises(InputError, match="pretrained"):
        build_model(Gpt2(pretrained=str(tmp_path)), input_shape=(8, 300), classes=2, seed=0)


def test_a_pickle_among_the_data_is_refused(evil: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "own.npz").write_bytes(evil)
    config = write_config(tmp_path, dataset={"name": "npz", "path": "own.npz"})
    places = ["--data-root", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["--config", str(config), *places, "--inline", "--dry-run"]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.slow
@pytest.mark.timeout(300)  # of a busy machine
def test_no_secret_reaches_a_file_or_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = {
        "AWS_SECRET_ACCESS_KEY": "s3cr3t-aws",
        "AWS_ACCESS_KEY_ID": "AKIA-hidden",
        "MLFLOW_TRACKING_PASSWORD": "s3cr3t-ml",
    }
    for name, value in hidden.items():
        monkeypatch.setenv(name, value)
    config = write_config(tmp_path, methods=["ssd"], search={"trials": 1})
    out = tmp_path / "out"
    done = start(
        "--config",
        config,
        "--out",
        out,
        "--inline",
        "--tracking-uri",
        "http://us3r-url:s3cr3t-url@127.0.0.1:9?token=s3cr3t-url",
    )
    output = "".join(done.communicate(timeout=280))
    assert done.returncode == 0, output
    written = b"".join(path.read_bytes() for path in out.rglob("*") if path.is_file())
    assert b"budget_sweep.py" in written  # the command is kept, without its secrets
    for secret in (*hidden.values(), "s3cr3t-url", "us3r-url"):
        assert secret not in output
        assert secret.encode() not in written


def test_a_local_ray_gets_a_token_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    protect_local_ray()
    first = os.environ["RAY_AUTH_TOKEN"]
    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert re.fullmatch("[0-9a-f]{64}", first)
    monkeypatch.delenv("RAY_AUTH_MODE")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    protect_local_ray()
    assert os.environ["RAY_AUTH_TOKEN"] != first
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # what the user says counts
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    protect_local_ray()
    assert "RAY_AUTH_TOKEN" not in os.environ


JOIN = """
import ray
ray.init(address={address!r}, logging_level="ERROR")
print("joined", len(ray.nodes()))
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(240)
def test_nobody_joins_a_local_ray_without_its_token() -> None:
    executor = RayExecutor("local", cpus=1, gpus=0)
    try:
        address = executor._ray.get_runtime_context().gcs_address
        told = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": os.environ["RAY_AUTH_TOKEN"]}
        assert "joined 1" in join(address, told)
        for stranger in (told | {"RAY_AUTH_TOKEN": "0" * 64}, {"RAY_AUTH_MODE": "disabled"}):
            assert "joined" not in join(address, stranger)
    finally:
        executor.close()


def join(address: str, token: dict[str, str]) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")} | token
    code = JOIN.format(address=address)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment).stdout
