"""A command is given from a folder whose files are called like modules: ours run, and the libraries', never those."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sweeps.tiny import ROOT, command, write_config

NAMES = ("analysis", "sweeps", "unlearn_core", "random", "json", "torch", "tempfile", "pandas", "mlflow", "ray")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """Each file leaves a mark when it runs, then ends its process as if all were well."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for name in NAMES:
        mark = f"open({str(tmp_path / 'ran')!r}, 'a').write('{name} in ' + ' '.join(sys.argv) + '\\n')"
        (folder / f"{name}.py").write_text(f"import sys\n{mark}\nsys.exit(0)\n")
    return folder


def run(words: list[str], folder: Path, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHON", "MLFLOW_"))}
    done = subprocess.run(words, cwd=folder, env=clean | environment, capture_output=True, text=True, timeout=280)
    ran = folder.parent / "ran"
    assert not ran.exists(), ran.read_text()
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(300)
@pytest.mark.parametrize("where", [["--inline"], []], ids=["inline", "ray"])
def test_a_sweep_from_a_folder_with_modules_of_the_same_names(hostile: Path, where: list[str]) -> None:
    said = run(command("--config", write_config(hostile), "--out", "out", *where), hostile)
    assert (hostile / "out" / "tiny" / "report" / "index.html").is_file()
    assert "browse the trials: http" in said  # MLflow has them
    assert "failed" not in (hostile / "out" / "tiny" / "tracking.log").read_text()


def documented() -> list[str]:
    """Modules that the pages tell users to start with `python ... -m`."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    text = "\n".join(page.read_text() for page in pages)
    return sorted(set(re.findall(r"python (?:-\w )*-m (?:sweeps|analysis)[\w.]*", text)))


@pytest.mark.slow
@pytest.mark.parametrize("line", documented())
def test_documented_commands_start_our_modules(hostile: Path, line: str) -> None:
    assert "usage: " in run([sys.executable, *shlex.split(line)[1:], "--help"], hostile)


@pytest.mark.slow
def test_own_packages_are_found_before_those_on_the_python_path(hostile: Path) -> None:
    for name in set(NAMES) - {"analysis", "sweeps", "unlearn_core"}:
        (hostile / f"{name}.py").unlink()
    assert "quick" in run(command("--list"), hostile, PYTHONPATH=".")


@pytest.mark.slow
def test_modules_beside_the_packages_hide_none_of_a_library(hostile: Path) -> None:
    """The project's own folder is where the README's commands are given."""
    for name in ("unlearn_core", "sweeps", "analysis"):
        (hostile / name).symlink_to(ROOT / name)
    assert "quick" in run([sys.executable, "sweeps/budget_sweep.py", "--list"], hostile)
