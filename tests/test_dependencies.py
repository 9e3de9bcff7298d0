"""What is imported is declared: a dependency of a dependency may go any day."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"unlearn_core", "sweeps", "analysis", "tests", "benchmarks"}
OWNER = packages_distributions()


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*extras: str) -> set[str]:
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return {normal(re.split(r"[\s\[<>=!~;]", line, maxsplit=1)[0]) for line in lines}


def imported(folder: str) -> Iterator[tuple[str, str]]:
    """(package, file) of every import that is neither ours nor the standard library's."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for package in {name.partition(".")[0] for name in names} - OURS - sys.stdlib_module_names:
                yield package, str(path.relative_to(ROOT))


@pytest.mark.parametrize("folder", sorted(OURS))
def test_every_import_is_declared(folder: str) -> None:
    known = declared("dev") if folder in ("tests", "benchmarks") else declared("s3")
    wrong = {
        (package, path)
        for package, path in imported(folder)
        if not {normal(owner) for owner in OWNER.get(package, [package])} & known
    }
    assert not wrong


def test_the_lock_pins_every_dependency_and_nothing_else() -> None:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [
        re.fullmatch(r"([A-Za-z0-9._-]+)==\S+( ; .+)?", line) for line in lines if line and not line.startswith("#")
    ]
    assert all(pins)
    locked = {normal(pin[1]) for pin in pins if pin}
    assert declared("dev", "s3") <= locked
