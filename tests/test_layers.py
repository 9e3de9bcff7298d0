"""Who may import whom: read in the sources, and seen in fresh interpreters, where imports of imports show too."""

from __future__ import annotations

import ast
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sweeps.commands.verbs import VERBS

ROOT = Path(__file__).parents[1]
PURE = tuple(f"unlearn_core.{name}" for name in ("metrics", "registry", "checks", "types", "host"))
CORE_FORBIDDEN = {"ray", "mlflow", "optuna", "pandas", "matplotlib", "transformers", "sweeps", "analysis"}
SCHEMA = tuple(f"sweeps.schema.{path.stem}" for path in sorted((ROOT / "sweeps/schema").glob("[!_]*.py")))
FLOORS = {
    "sweeps": [
        {"schema"},
        {"storage"},
        {"config", "tracking"},
        {"trials"},
        {"planning"},
        {"execution"},
        {"commands"},
        {"hypotheses"},
    ],
    "analysis": [{"statistics"}, {"reading"}, {"results"}, {"figures"}, {"tables"}, {"pages", "hypotheses", "scan"}],
}
"""The rooms of a package; each imports only those on the floors below it."""
LOOSE = {
    "sweeps": {"__init__.py", "__main__.py", "budget_sweep.py", "launch.py"},
    "analysis": {"__init__.py", "notebook.py", "page_section.py", "report.py"},
}
"""Modules of a package that are in no room: its doors."""
FILES = {
    "ray": {"ray_executor.py", "ray_watch.py", "tune_fit.py", "tune_queue.py", "tune_stop.py"},
    "optuna": {"optuna_search.py"}, "mlflow": {"mlflow_mirror.py"}, "fsspec": {"s3.py"},
}  # fmt: skip


def imports(path: Path) -> Iterator[str]:
    """Full names of all modules that a file imports anywhere, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} line {node.lineno}: imports name their package in full here"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def uses(package: str) -> list[tuple[Path, str]]:
    return [(path, name) for path in sorted((ROOT / package).rglob("*.py")) for name in imports(path)]


def loaded_by(*modules: str) -> set[str]:
    """Names of all modules in an interpreter that imported these and nothing else."""
    code = f"import sys, {', '.join(modules)}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def modules_of(package: str) -> list[str]:
    found = pkgutil.walk_packages([str(ROOT / package.replace(".", "/"))], prefix=f"{package}.")
    return [package, *(module.name for module in found)]


def top(names: set[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def test_the_core_imports_no_orchestration() -> None:
    wrong = [(path, name) for path, name in uses("unlearn_core") if name.partition(".")[0] in CORE_FORBIDDEN]
    assert not wrong
    assert not top(loaded_by(*modules_of("unlearn_core"))) & (CORE_FORBIDDEN | {"tokenizers", "safetensors"})


def test_the_arithmetic_needs_no_torch() -> None:
    assert not top(loaded_by(*PURE, *modules_of("unlearn_core.metrics"))) & {"torch", "sklearn"}


@pytest.mark.parametrize(("library", "files"), FILES.items())
def test_sweeps_imports_each_tool_in_one_place(library: str, files: set[str]) -> None:
    assert {path.name for path, name in uses("sweeps") if name.partition(".")[0] == library} == files


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_one_file_knows_which_kinds_of_storage_there_are(kind: str) -> None:
    users = [path for path, name in uses("sweeps") if name.startswith(f"sweeps.storage.{kind}.")]
    assert set(users) == {ROOT / "sweeps" / "storage" / "folders.py"}


@pytest.mark.parametrize("package", FLOORS)
def test_each_room_imports_only_rooms_below_it(package: str) -> None:
    floor = {room: level for level, rooms in enumerate(FLOORS[package]) for room in rooms}
    for path, name in uses(package):
        parts = name.split(".")
        room = path.relative_to(ROOT / package).parts[0]
        if room in floor and parts[0] == package and parts[1] not in {room, "launch"}:
            assert floor[parts[1]] < floor[room], f"{path} imports {name}"


@pytest.mark.parametrize("package", FLOORS)
def test_every_module_is_in_one_of_the_rooms(package: str) -> None:
    assert {path.name for path in (ROOT / package).iterdir() if path.suffix == ".py"} == LOOSE[package]


def test_sweeps_draws_and_analyses_nothing() -> None:
    assert not [(path, name) for path, name in uses("sweeps") if name.partition(".")[0] in {"matplotlib", "analysis"}]


def test_the_records_schema_needs_the_standard_library_only() -> None:
    without_packages = [sys.executable, "-S", "-c", f"import {', '.join(SCHEMA)}"]
    assert subprocess.run(without_packages, cwd=ROOT, check=False).returncode == 0


def test_importing_sweeps_is_quick() -> None:
    assert not top(loaded_by("sweeps.commands.driver", "sweeps.tracking.sync")) & {
        "ray",
        "mlflow",
        "optuna",
        "matplotlib",
    }


HEAVY = {"torch", "ray", "mlflow", "optuna", "matplotlib", "scipy", "sklearn", "pandas", "pyarrow", "s3fs"}


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb not in ("hypotheses", "scan")])
def test_verbs_load_what_they_need_and_nothing_heavy(verb: str) -> None:
    assert not top(loaded_by("sweeps.commands.main", VERBS[verb].module)) & HEAVY


def test_the_public_names_of_sweeps_are_imported_when_they_are_asked_for() -> None:
    assert not top(loaded_by("sweeps")) & HEAVY


def test_analysis_reads_records_only() -> None:
    forbidden = {"torch", "ray", "mlflow", "optuna"}
    for path, name in uses("analysis"):
        package = name.partition(".")[0]
        assert package not in forbidden, path
        assert package != "sweeps" or name.startswith(SCHEMA), path
        assert package != "unlearn_core" or name.startswith(PURE), path
    seen = loaded_by(*modules_of("analysis"))
    assert not top(seen) & forbidden
    assert {name for name in seen if name.startswith("sweeps")} <= {"sweeps", "sweeps.schema", *SCHEMA}


def test_helpers_of_tests_live_in_modules_without_tests() -> None:
    found = [(path.name, name) for path, name in uses("tests") if ".test_" in name and name.startswith("tests.")]
    assert not found
