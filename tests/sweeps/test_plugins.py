"""Plug-ins: from a file and from an installed package, found again on resume, never mixed after an edit."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sweeps.commands.driver import Driver
from sweeps.commands.run import main
from sweeps.config import plugins
from sweeps.config.spec import Sweep
from sweeps.storage.manifest import read_manifest
from sweeps.storage.record_log import read_trials
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from sweeps.trials.trial import Request, trial_id
from tests.sweeps.plugin_state import forget_plugins
from tests.sweeps.tiny import ROOT, lines, raw, start, tiny, write_config
from unlearn_core.checks import InputError
from unlearn_core.registry import METRICS, UNLEARNERS

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
(EXAMPLE,) = [block for block in BLOCKS if "UNLEARNERS.register" in block]
METRIC = '''
from unlearn_core.metrics import Family
from unlearn_core.registry import METRICS

def count(arrays):
    """Rows."""
    return {"rows_seen": float(len(arrays["forget_targets"]))}

METRICS.register("rows_seen")(Family(columns={"rows_seen": "rows"}, needs=("forget_targets",), compute=count))
'''
METHODS = ["gd", "sign_descent"]
Run = Callable[..., int]


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process of its own: nothing is loaded, and nothing stays."""
    forget_plugins(monkeypatch)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "sign_descent.py"
    path.write_text(EXAMPLE)
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command on the tiny sweep in this process, without a report."""
    monkeypatch.setattr(Driver, "_analyse", lambda self: 0)

    def call(*arguments: Any, **changes: Any) -> int:
        config = write_config(tmp_path, **{"methods": METHODS} | changes)
        fixed = ["--config", str(config), "--out", str(tmp_path / "out"), "--inline", "--no-tracking"]
        return main([*fixed, *map(str, arguments)])

    return call


def methods_in(folder: Path) -> set[str]:
    return {trial.method for trial in read_trials(folder) if trial.stage == "confirmation"}


def test_the_example_of_the_readme_runs_in_a_sweep_and_is_found_again(
    run: Run, example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--plugin", example) == 0
    folder = tmp_path / "out" / "tiny"
    assert methods_in(folder) == set(METHODS)
    assert all(trial.error is None for trial in read_trials(folder))
    (recorded,) = read_manifest(folder)["spec"]["plugins"]
    assert recorded == {"source": str(example), "digest": plugins.load_plugins([str(example)])[0].digest}
    before = lines(folder)
    forget_plugins(monkeypatch)
    moved = example.rename(tmp_path / "elsewhere.py")
    assert run("--plugin", moved) == 0
    assert lines(folder) == before
    assert read_manifest(folder)["spec"]["plugins"][0]["source"] == str(moved)


def test_an_unfinished_sweep_goes_on_with_a_plugin_that_has_moved(
    run: Run, example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--plugin", example, methods=["sign_descent"]) == 0
    folder = tmp_path / "out" / "tiny"
    whole = {trial.trial_id for trial in read_trials(folder)}
    for part in folder.glob("records/badnets--sign_descent/*"):
        part.unlink()
    forget_plugins(monkeypatch)
    assert run("--plugin", example.rename(tmp_path / "elsewhere.py"), methods=["sign_descent"]) == 0
    assert {trial.trial_id for trial in read_trials(folder)} == whole


def test_an_edited_plugin_never_continues_the_old_sweep(
    run: Run, example: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--plugin", example) == 0
    example.write_text(EXAMPLE.replace("gradient.sign()", "2 * gradient.sign()"))
    assert run("--plugin", example) == 2
    assert "was changed after it was loaded; start the command again" in capsys.readouterr().err
    forget_plugins(monkeypatch)
    assert run("--plugin", example) == 2
    assert "holds a sweep with other settings (differs in plugins)" in capsys.readouterr().err


def trial_of(sweep: Sweep, method: str, out: Path) -> str:
    settings = UNLEARNERS.get(method)()
    request = Request(
        attack="badnets", seed=0, discovery_rate=1.0, stage="tuning", method=method, settings=settings, budgets=(0.1,),
        study="s",
    )  # fmt: skip
    return trial_id(ScenarioCache(sweep, RunEnvironment(out)), request)


def test_content_identifies_the_trials_that_use_it_and_no_others(
    example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = []
    for text in (EXAMPLE, EXAMPLE + "\n# edited\n"):
        example.write_text(text)
        forget_plugins(monkeypatch)
        sweep = tiny(methods=METHODS, plugins=[str(example)])
        ids.append({method: trial_of(sweep, method, tmp_path) for method in METHODS} | {"": sweep.identity()})
    assert [key for key in ids[0] if ids[0][key] != ids[1][key]] == ["sign_descent", ""]
    assert ids[0]["gd"] == trial_of(tiny(), "gd", tmp_path)
    assert tiny(plugins=[str(example)]).identity() == tiny().identity()


def test_a_metric_of_a_plugin_identifies_all_trials_and_is_recorded(run: Run, tmp_path: Path) -> None:
    path, plain = tmp_path / "metric.py", trial_of(tiny(), "gd", tmp_path)
    path.write_text(METRIC)
    assert run("--plugin", path, methods=["gd"]) == 0
    assert trial_of(tiny(plugins=[str(path)]), "gd", tmp_path) != plain
    assert "rows_seen" in METRICS.names()
    assert "rows_seen" in read_manifest(tmp_path / "out" / "tiny")["metrics"]
    for trial in read_trials(tmp_path / "out" / "tiny"):
        assert all(rung.metrics["rows_seen"] == 20 for rung in trial.rungs)


def test_a_model_of_a_plugin_identifies_its_artifacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "unlearn_core" / "models" / "dense.py").read_text().replace('register("', 'register("my_')
    groups = []
    for content in (text, text + "\n"):
        (tmp_path / "models.py").write_text(content)
        forget_plugins(monkeypatch)
        sweep = tiny(model="my_linear", plugins=[str(tmp_path / "models.py")])
        bench = ScenarioCache(sweep, RunEnvironment(tmp_path)).bench("badnets", 0, "test")
        groups.append(sweep.group("badnets", "data"))
        assert bench.oracle.cost.steps > 0
    assert groups[0] != groups[1]
    assert len(list((tmp_path / "store" / "model").iterdir())) == 4  # corrupted and oracle, of each


def install(folder: Path, version: str = "1.0") -> None:
    """What `pip install` leaves behind: a module, and metadata that names it as an entry point."""
    (folder / "my_package").mkdir(parents=True, exist_ok=True)
    (folder / "my_package" / "__init__.py").write_text("")
    (folder / "my_package" / "method.py").write_text(EXAMPLE)
    info = folder / "my_package-1.0.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: my-package\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[{plugins.GROUP}]\nsign-descent = my_package.method\n")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    install(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    importlib.invalidate_caches()
    yield tmp_path / "site"
    for name in [name for name in sys.modules if name.partition(".")[0] == "my_package"]:
        del sys.modules[name]


@pytest.mark.usefixtures("package")
def test_an_entry_point_runs_in_a_sweep(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert "sign-descent  installed; load it with --plugin" in capsys.readouterr().out
    assert "my_package.method" not in sys.modules
    assert run("--plugin", "sign-descent") == 0
    assert methods_in(tmp_path / "out" / "tiny") == set(METHODS)
    assert read_manifest(tmp_path / "out" / "tiny")["spec"]["plugins"][0]["source"] == "sign-descent"


def test_version_and_files_of_a_package_are_its_content(package: Path) -> None:
    (entry,) = plugins.entry_points(group=plugins.GROUP)
    first = plugins._package_digest(entry)
    install(package, version="1.1")
    (entry,) = plugins.entry_points(group=plugins.GROUP)
    second = plugins._package_digest(entry)
    (package / "my_package" / "helper.py").write_text("x = 1")
    assert len({first, second, plugins._package_digest(entry)}) == 3


def test_list_shows_what_a_plugin_adds(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list", "--plugin", str(example)]) == 0
    told = capsys.readouterr().out
    assert re.search(r"sign_descent +Fine-tunes on the retain set with the sign of the gradient\.", told)
    assert f"{example}  adds sign_descent" in told


BAD = {
    "missing": (None, "plug-in FILE cannot be read: No such file or directory"),
    "syntax": ("def", "plug-in FILE cannot be imported: SyntaxError: "),
    "import": ("import nowhere", "plug-in FILE cannot be imported: ModuleNotFoundError: No module named 'nowhere'"),
    "exit": ("raise SystemExit(0)", "plug-in FILE cannot be imported: SystemExit: 0"),
    "nothing": ("x = 1", "plug-in FILE registers nothing; decorate its class"),
    "clash": (
        EXAMPLE.replace("sign_descent", "gd"),
        "plug-in FILE: unlearner 'gd' is already registered; choose anoth",
    ),
    "no needs": (
        re.sub(r"    needs: .*\n", "", EXAMPLE),
        "plug-in FILE: unlearner 'sign_descent' lacks needs",
    ),
    "strange needs": (
        EXAMPLE.replace('("retain", "retain_labels")', '("retain", "bananas")'),
        "plug-in FILE: needs of 'sign_descent' must be among",
    ),
    "no dataclass": (
        EXAMPLE.replace("@dataclass(frozen=True, kw_only=True)", ""),
        "plug-in FILE: unlearner 'sign_descent' lacks the decorator @dataclass",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_plugin_is_one_line_and_code_2(
    run: Run, case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, message = BAD[case]
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_text(text)
    assert run("--plugin", path) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: " + message.replace("FILE", str(path))), said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("wrong", ["mine.py", [3], [{"digest": "x"}], [""]])
def test_plugins_must_be_a_list_of_names(wrong: Any) -> None:
    with pytest.raises(InputError, match="plugins must be a list of files or entry points"):
        Sweep.from_dict(raw(plugins=wrong))


def test_an_unknown_entry_point_is_named() -> None:
    with pytest.raises(InputError, match="plug-in 'mine' is neither a .py file nor an entry point"):
        plugins.load_plugins(["mine"])


def test_a_worker_refuses_a_file_that_was_edited_meanwhile(example: Path) -> None:
    recorded = tiny(methods=METHODS, plugins=[str(example)]).to_dict()
    assert Sweep.from_dict(recorded).to_dict() == recorded
    recorded["plugins"][0]["digest"] = "0" * 16
    with pytest.raises(InputError, match="was changed while its sweep runs"):
        Sweep.from_dict(recorded)


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_workers_load_it_too(example: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, methods=["sign_descent"], plugins=["sign_descent.py"])
    process = start("--config", config, "--out", tmp_path / "out", "--no-tracking", cwd=tmp_path)
    _, said = process.communicate()
    assert process.returncode == 0, said
    assert methods_in(tmp_path / "out" / "tiny") == {"sign_descent"}


@pytest.mark.slow
def test_the_commands_of_the_docs_are_understood(example: Path) -> None:
    told = re.findall(r"unlearn (list|run) (--plugin .*)", (ROOT / "docs" / "plugins.md").read_text())
    assert [verb for verb, _ in told] == ["list", "run"]
    for verb, line in told:
        words = [word.strip("'") for word in re.findall(r"'[^']*'|\S+", line)]
        unlearn = [sys.executable, "-P", str(ROOT / "sweeps" / "launch.py"), "sweeps.__main__"]
        arguments = ["list", *words] if verb == "list" else ["plan", *words, "--out", "out"]
        done = subprocess.run([*unlearn, *arguments], cwd=example.parent, capture_output=True, text=True, check=True)
        assert "sign_descent" in done.stdout
