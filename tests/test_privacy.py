"""What SECURITY.md promises to users of a machine that they share: results are for their owner alone, and so is Ray."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from sweeps.execution.ray_executor import RayExecutor
from sweeps.execution.worker import work_task
from tests.sweeps.tiny import ROOT, command, tasks, tiny, write_config
from unlearn_core.checks import InputError
from unlearn_core.host.private import private_files


def modes(folder: Path) -> set[str]:
    """Rights of the group and of all others, on the folder and everything in it."""
    paths = [path for path in (folder, *folder.rglob("*")) if not path.is_symlink()]
    return {f"{stat.S_IMODE(path.stat().st_mode) & 0o077:03o}" for path in paths}


def run(out: Path, umask: str | None) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name not in ("UNLEARN_UMASK", "RAY_ADDRESS")}
    own = {} if umask is None else {"UNLEARN_UMASK": umask}
    config = write_config(out.parent, methods=["ssd"], search={"trials": 1})
    return subprocess.run(
        command("--config", config, "--out", out, "--inline", "--tracking-uri", f"sqlite:///{out.parent}/m/mlflow.db"),
        env=clean | own, capture_output=True, text=True, umask=0o022, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("umask", "allowed"), [(None, {"000"}), ("027", {"050", "040"}), ("007", {"070", "060"})])
def test_results_database_and_report_are_for_their_owner_alone_unless_asked(
    tmp_path: Path, umask: str | None, allowed: set[str]
) -> None:
    (tmp_path / "m").mkdir()
    done = run(tmp_path / "out", umask)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "tiny" / "report" / "index.html").exists()
    assert modes(tmp_path / "out") <= allowed | ({"040"} if umask else set())  # what only its writer ever changes
    (base,) = (tmp_path / "m").glob("mlflow.db")
    assert modes(base) <= allowed


@pytest.mark.parametrize("umask", ["", "7", "abc", "0999", "700", "777", "-77", "0o77"])
def test_a_umask_that_is_none_is_refused(tmp_path: Path, umask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNLEARN_UMASK", umask)
    with pytest.raises(InputError, match="UNLEARN_UMASK is .*; it must be three octal digits"), private_files():
        pass


def test_one_that_is_none_is_one_line(tmp_path: Path) -> None:
    done = run(tmp_path / "out", "rwx")
    assert done.returncode == 2
    assert done.stderr.startswith("error: UNLEARN_UMASK is 'rwx'; ")
    assert not (tmp_path / "out").exists()


def test_the_umask_of_the_process_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UNLEARN_UMASK", raising=False)
    before = os.umask(0o022)
    try:
        with private_files():
            assert os.umask(0o077) == 0o077
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_workers_keep_to_it_on_any_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sweeps.trials.scenario_cache import RunEnvironment
    from tests.sweeps.tiny import prepare

    monkeypatch.delenv("UNLEARN_UMASK", raising=False)
    sweep = tiny()
    folder = prepare(sweep, tmp_path)
    before = os.umask(0o022)
    try:
        assert work_task(folder, RunEnvironment(tmp_path), tasks(sweep)[0]).error is None
    finally:
        os.umask(before)
    assert modes(folder / "records") == modes(tmp_path / "store") == {"000"}


@pytest.mark.slow
@pytest.mark.parametrize("module", ["sweeps.tracking.sync", "analysis.report", "sweeps"])
def test_other_commands_keep_to_it_too(tmp_path: Path, module: str) -> None:
    arguments = ["status", str(tmp_path)] if module == "sweeps" else [str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"UNLEARN_UMASK": "x", "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/x.db"},
    )  # fmt: skip
    assert done.returncode in (1, 2)
    assert "UNLEARN_UMASK is 'x'; it must be three octal digits" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(300)
def test_nobody_else_reaches_the_folder_of_a_local_ray_and_it_goes_with_it() -> None:
    import ray

    executor = RayExecutor("local", cpus=1, gpus=0)
    try:
        session = Path(ray._private.worker._global_node.get_session_dir_path())
        assert (session / "sockets" / "raylet").is_socket()
        home = session.parents[1]
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert home.stat().st_uid == os.geteuid()
    finally:
        executor.close()
    assert not home.exists()
