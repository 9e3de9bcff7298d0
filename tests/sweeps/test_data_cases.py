"""Data with something wrong: the whole command refuses it, or warns of it, before anything is trained."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeps.commands.driver import Driver
from sweeps.commands.run import main
from tests.cases.data_cases import CASES, PATCH, images, write
from tests.sweeps.tiny import write_config


def command(folder: Path, file: Path, *arguments: str, **changes: Any) -> list[str]:
    dataset = {"name": "npz", "path": str(file)}
    config = write_config(folder, dataset=dataset, rows={}, **({"attacks": [PATCH]} | changes))
    return ["--config", str(config), "--out", str(folder / "out"), "--inline", "--no-tracking", *arguments]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_plan_refuses_warns_or_is_quiet(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES[name]
    changes = {"attacks": [case.attack]} if case.attack else {}
    code = main(command(tmp_path, write(name, tmp_path), "--dry-run", **changes))
    out, errors = capsys.readouterr()
    assert code == (2 if case.refused else 0)
    assert len(re.findall("^error: ", errors, re.M)) == case.refused
    assert re.search(case.told, errors)
    assert bool(errors) == bool(case.told)
    if not case.refused:
        assert "data        npz: images, 60 training, 10 validation and 20 test rows" in out
        assert "inputs      8 x 8 x 1; pixels 0 to" in out
    assert not list(tmp_path.glob("out/*/records/*"))
    assert not list(tmp_path.glob("out/store/*"))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.refused])
def test_a_run_is_refused_before_anything_is_trained(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    changes = {"attacks": [case.attack]} if case.attack else {}
    assert main(command(tmp_path, write(name, tmp_path), **changes)) == 2
    assert re.search(f"^error: .*{case.told}", capsys.readouterr().err, re.M)
    assert not list(tmp_path.glob("out/*/records/*"))
    assert not list(tmp_path.glob("out/store/*"))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished sweep, without its analysis, and with its data; read it, never write to it."""
    folder = tmp_path_factory.mktemp("done")
    write("overlap", folder)
    told = io.StringIO()
    with contextlib.redirect_stderr(told), pytest.MonkeyPatch.context() as patch:
        patch.setattr(Driver, "_analyse", lambda self: 0)
        assert main(again(folder)) == 0
    assert "data        npz: images, 60 training" in told.getvalue()
    assert "warning: data: " in told.getvalue()
    return folder


def again(folder: Path) -> list[str]:
    """The command of the finished sweep, with all its files in this folder."""
    changes = {"methods": ["gd"], "search": {"trials": 1}}
    return command(folder, Path("overlap.npz"), "--data-root", str(folder), **changes)


@pytest.fixture
def finished(done: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], Path]:
    """The command of a finished sweep, without its analysis, and its data file."""
    shutil.copytree(done, tmp_path, dirs_exist_ok=True)
    monkeypatch.setattr(Driver, "_analyse", lambda self: 0)
    return again(tmp_path), tmp_path / "overlap.npz"


def manifest(file: Path) -> Path:
    return file.parent / "out" / "tiny" / "sweep.json"


def changed(file: Path, what: str) -> str:
    """Writes other data; returns what the message must name."""
    arrays = dict(np.load(file))
    if what == "rows":
        arrays |= {"x_train": arrays["x_train"][:-3], "y_train": arrays["y_train"][:-3]}
    elif what == "content":
        arrays["x_train"][10, 0, 0] ^= 1
    elif what == "classes":
        arrays["y_train"][:2] = 3
    elif what == "meaningless":
        arrays["x_train"][:] = 0
    np.savez(file, **arrays)
    names = {"rows": "training rows: 60, now 57", "content": "the same rows and classes, but other content"}
    return (names | {"classes": "classes: 0, 1, 2, now 0, 1, 2, 3"}).get(what, "training range: 0 to 255, now 0 to 0")


@pytest.mark.parametrize("what", ["rows", "content", "classes", "meaningless"])
def test_data_that_changed_after_the_end_is_no_success(
    what: str, finished: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    asked, file = finished
    named = changed(file, what)
    assert main(asked) == 2
    told = capsys.readouterr().err
    assert "holds trials on other data" in told
    assert named in told
    assert "all trials are done already" not in told


def test_without_its_data_a_finished_sweep_still_gives_its_report(
    finished: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    asked, file = finished
    before = manifest(file).read_text()
    file.unlink()
    assert main(asked) == 0
    told = capsys.readouterr().err
    assert "note: whether the data is still the same was not checked" in told
    assert "all trials are done already" in told
    assert manifest(file).read_text() == before
    file.write_bytes(b"no data")
    assert main(asked) == 2
    assert "has changed: " in capsys.readouterr().err


def test_a_folder_without_a_card_is_gone_on_with_and_gets_one(finished: tuple[list[str], Path]) -> None:
    asked, file = finished
    old = json.loads(manifest(file).read_text())
    card = old.pop("card")
    assert card["classes"] == ["0", "1", "2"]
    del old["data"]
    manifest(file).write_text(json.dumps(old))
    assert main(asked) == 0
    assert json.loads(manifest(file).read_text())["card"] == card


def test_data_that_changed_is_told_in_the_plan_too(
    finished: tuple[list[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    asked, file = finished
    np.savez(file, **images(seed=5))  # type: ignore[arg-type]
    assert main([*asked, "--dry-run"]) == 2
    assert "holds trials on other data" in capsys.readouterr().err
