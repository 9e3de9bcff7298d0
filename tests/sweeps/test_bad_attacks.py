"""Attacks that cannot work on the data of a sweep: told by the command in one clear line, before any training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sweeps.commands.driver import Driver
from sweeps.commands.run import main
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.sweeps.text_sweep import TEXT
from tests.sweeps.tiny import tiny, write_config

COPIES: dict[str, Any] = {"dataset": {"name": "npz", "path": "copies.npz"}, "rows": {}}


def copies(folder: Path) -> None:
    """Images of which every held-out one is a training row, too, but those of class 9."""
    random = np.random.default_rng(0)
    pixels, labels = random.integers(0, 256, (200, 8, 8), dtype=np.uint8), (np.arange(200) % 10).astype(np.int64)
    held_out = np.where((labels == 9)[:, None, None], 255 - pixels, pixels)
    parts = {"x_train": pixels, "y_train": labels, "x_test": held_out, "y_test": labels}
    np.savez(folder / "copies.npz", **parts)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by a worker nor by a check."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a model was about to be trained")

    monkeypatch.setattr(Driver, "_executor", refuse)
    monkeypatch.setattr("sweeps.trials.scenario_cache.ScenarioCache._trained", refuse)


def say(folder: Path, capsys: pytest.CaptureFixture[str], attack: dict[str, Any], **changes: Any) -> tuple[int, str]:
    """Exit code and the error stream of the command."""
    copies(folder)
    config = write_config(folder, attacks=[attack], **changes)
    arguments = ["--config", config, "--out", folder / "out", "--data-root", folder, "--inline", "--no-tracking"]
    code = main([str(argument) for argument in arguments])
    return code, capsys.readouterr().err


LONG = {"phrase": "james bond and all the others", "decoy": "harry lime with none of them"}
IMPOSSIBLE: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    # a trigger that does not survive tokenisation
    "trigger longer than a text": (
        {"name": "text_backdoor"} | LONG,
        TEXT | {"dataset": {"name": "opinions", "rows": 200, "length": 8}},
        "phrase 'james bond and all the others' does not survive: it fills all 8 tokens of a text; shorten it, "
        "or raise the length of the texts",
    ),
    # more poisons than base rows
    "stripes": ({"name": "sig", "fraction": 0.2}, {}, "fraction asks for 40 poisons, but only 20 rows have the target"),
    "pair": (
        {"name": "label_flip", "mode": "pair", "fraction": 0.2},
        {},
        "fraction asks for 40 poisons, but only 21 rows have the source class 3; lower it",
    ),
    "confusion": (
        {"name": "interclass_confusion", "fraction": 0.5},
        {},
        "fraction asks for 50 poisons, but only 21 rows have the class 3; lower it",
    ),
    "matching": (
        {"name": "gradient_matching", "fraction": 0.3, "intended": 4},
        {},
        "fraction asks for 60 poisons, but only 20 rows can be poisons under threat single_class (class 4); lower it",
    ),
    "bundle": (
        {"name": "bundle", "parts": [{"name": "sig", "fraction": 0.09}, {"name": "interclass_confusion", "first": 0}]},
        {},
        "fraction asks for 5 poisons, but only 2 rows have the class 0; lower it",
    ),
    # a perturbation without its unit
    "eps without a space": (
        {"name": "gradient_matching", "eps": 8},
        {},
        "attacks.gradient_matching: eps 8.0 is given without a space; set space to one of pixel01, pixel255, ",
    ),
    "space without eps": (
        {"name": "gradient_matching", "space": "pixel255"},
        {},
        "attacks.gradient_matching: space 'pixel255' is given without eps; set both or neither",
    ),
    "eps of another space": (
        {"name": "gradient_matching", "eps": 8, "space": "pixel01"},
        {},
        "attacks.gradient_matching: eps must lie in [0, 1] and not be 0 in pixel01, but got 8.0",
    ),
    # a target that is a training row
    "target among the training rows": ({"name": "gradient_matching", "fraction": 0.05}, COPIES, "target "),
}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_an_impossible_attack_is_refused_in_one_line(
    case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    attack, changes, message = IMPOSSIBLE[case]
    code, said = say(tmp_path, capsys, attack, **changes)
    assert code == 2 and said.startswith(f"error: {message}"), said
    assert said.count("\n") == 1
    assert not {path.parent.name for path in (tmp_path / "out").glob("store/*/*")} & {"model", "poison"}


def test_the_target_and_what_to_do_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = say(tmp_path, capsys, {"name": "gradient_matching", "fraction": 0.05}, **COPIES)[1]
    assert "of the validation rows is a training row, too; take another seed, or take the copy out of the data" in said


UNREACHABLE = {"name": "gradient_canceling", "fraction": 0.03, "reach": None, "steps": 1}


@pytest.mark.parametrize("attack", [UNREACHABLE, UNREACHABLE | {"reach": 0.9, "scope": "all"}], ids=["head", "all"])
def test_weights_out_of_reach_are_told_by_the_worker_that_knows(
    attack: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the attacker's own clean model to know."""
    config = write_config(tmp_path, attacks=[attack], budgets=[0.5])
    arguments = ["--config", config, "--out", tmp_path / "out", "--inline", "--no-tracking", "--dry-run"]
    assert main([str(argument) for argument in arguments]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.undo()
    ScenarioCache(tiny(attacks=[attack]), RunEnvironment(tmp_path)).train("gradient_canceling", 0, "poison", 1.0)
    said = capsys.readouterr().err
    assert said.startswith("warning: attack 'gradient_canceling': the target weights need a poison share of at least ")
    assert "but it is 0.03: they cannot be reached; raise fraction or set reach" in said and said.count("\n") == 1


def test_weights_within_reach_need_no_warning_and_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path, attacks=[UNREACHABLE | {"reach": 0.9}], budgets=[0.5])
    arguments = ["--config", config, "--out", tmp_path / "out", "--inline", "--no-tracking", "--dry-run"]
    assert main([str(argument) for argument in arguments]) == 0
    assert capsys.readouterr().err == ""
