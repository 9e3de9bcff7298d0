"""A check trains nothing, whatever the attack: the head of a cluster has no accelerator, and a plan is to be cheap."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import unlearn_core.attacks  # noqa: F401 - registers them
from sweeps.commands.driver import Driver
from sweeps.commands.folders import prepare
from sweeps.commands.options import RunOptions
from sweeps.commands.run import main, parser
from sweeps.planning.manifest import write_manifest
from sweeps.storage.manifest import read_manifest
from sweeps.trials.feasible import NeedsModel, check_scenario
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.contracts.attack_cases import ROWS
from tests.sweeps.text_sweep import TEXT
from tests.sweeps.tiny import tiny, write_config
from unlearn_core.attacks import GradientCanceling, LabelFlip
from unlearn_core.attacks.gradient_canceling import SCOPES, TARGETS
from unlearn_core.attacks.label_flip import MARGINS, MODES
from unlearn_core.checks import InputError
from unlearn_core.registry import ATTACKS

VARIANTS: dict[str, list[dict[str, Any]]] = ROWS | {
    "label_flip": [{"mode": mode, "margin": margin} for mode in MODES for margin in MARGINS],
    "gradient_canceling": [
        {"scope": scope, "target": target, "reach": reach, "steps": 2}
        for scope in SCOPES
        for target in TARGETS
        for reach in (0.9, None)
    ],
    "bundle": [
        {"parts": [{"name": "label_flip", "mode": "hard", "fraction": 0.05}, {"name": "gaussian", "fraction": 0.05}]}
    ],
}
CASES = [
    ({"name": name, **settings} | ({} if name == "bundle" else {"fraction": 0.05}))
    for name in ATTACKS.names()
    for settings in VARIANTS.get(name, [])
    if name != "gaussian" or settings != {"epsilon": 0.5}  # its settings on text
]


@pytest.fixture(autouse=True)
def nothing_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was about to be trained")

    monkeypatch.setattr("unlearn_core.scenarios.scenario.Scenario.train", refuse)
    monkeypatch.setattr("unlearn_core.scenarios.scenario.train_updates", refuse)
    monkeypatch.setattr("unlearn_core.training.budget.run_to_end", refuse)
    monkeypatch.setattr("sweeps.trials.scenario_cache.ScenarioCache._trained", refuse)


def test_every_attack_has_a_case_and_modes_are_those_there_are() -> None:
    assert {case["name"] for case in CASES} == set(ATTACKS.names())
    assert {"mode", "margin"} <= {field.name for field in fields(LabelFlip)}
    assert {"scope", "target", "reach"} <= {field.name for field in fields(GradientCanceling)}


@pytest.mark.slow
@pytest.mark.parametrize("attack", CASES, ids=str)
def test_neither_a_check_nor_a_plan_trains(attack: dict[str, Any], tmp_path: Path) -> None:
    settings = TEXT if attack["name"] == "text_backdoor" else {}
    config = write_config(tmp_path, attacks=[attack], seeds={"tuning": [0, 1], "confirmation": [2, 3, 4]}, **settings)
    arguments = ["--config", config, "--out", tmp_path / "out", "--inline", "--no-tracking", "--dry-run"]
    assert main([str(argument) for argument in arguments]) == 0
    assert not {path.parent.name for path in (tmp_path / "out").glob("store/*/*")} & {"model", "poison"}


HARD = {"name": "label_flip", "mode": "hard", "fraction": 0.1}


@pytest.mark.parametrize(
    ("attack", "rates", "message"),
    [
        (HARD, [1, 0.04, "single"], "0.04 and single both mean 1 of the 20 poisons of 'label_flip'"),
        (
            {"name": "bundle", "parts": [HARD, {"name": "sig", "fraction": 0.15}]},
            [1],
            "fraction asks for 30 poisons, but only 20 rows have the target",
        ),
        (
            {"name": "bundle", "parts": [HARD, {"name": "interclass_confusion", "fraction": 0.3}]},
            [1],
            "fraction asks for 30 poisons, but only 21 rows have the class 3; lower it",
        ),
    ],
    ids=["rates", "a part", "another part"],
)
def test_what_needs_no_model_is_refused_all_the_same(
    attack: dict[str, Any], rates: list[Any], message: str, tmp_path: Path
) -> None:
    work = ScenarioCache(tiny(attacks=[attack], discovery_rates=rates), RunEnvironment(tmp_path))
    with pytest.raises(InputError, match=message):
        work.check(attack["name"], 0)


def test_what_a_model_decides_is_refused_by_the_worker_in_the_same_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows of a class, and no others, have the largest margin."""
    work = ScenarioCache(tiny(attacks=[HARD]), RunEnvironment(tmp_path))
    work.check("label_flip", 0)
    worst = (work.dataset.train.targets == 3).nonzero().flatten()
    monkeypatch.undo()
    monkeypatch.setattr(LabelFlip, "choose_rows", lambda *_: worst)
    with pytest.raises(InputError, match="poison fraction leaves no clean training row of class 3; lower it"):
        work.train("label_flip", 0, "poison", 1.0)


def test_probes_may_ask_for_the_model_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = ScenarioCache(tiny(), RunEnvironment(tmp_path))
    scenario, asked = work.scenario("badnets", 0), []

    def probes(self: Any, held_out: Any, context: Any) -> None:
        asked.append(1)
        with pytest.raises(NeedsModel):
            context.clean_model()
        context.clean_model()

    monkeypatch.setattr(type(scenario.attack), "probes", probes)
    check_scenario(scenario, "badnets", [1.0])
    assert asked == [1]


def test_the_command_takes_no_context_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would keep its memory there until the end of the sweep."""

    def refuse() -> None:
        raise AssertionError("CUDA was about to start")

    monkeypatch.setattr("sweeps.commands.driver.pick_device", lambda *_: "cuda")
    monkeypatch.setattr("torch.cuda._lazy_init", refuse)
    options = parser().parse_args(["--out", str(tmp_path), "--no-tracking"])
    driver = Driver(tiny(resources={"gpus": 1}), RunOptions.from_namespace(options), "command")
    assert driver.place.device == "cuda"
    prepare(driver.replica, driver.out, driver.store)
    write_manifest(driver.sweep, driver.replica, driver.place, "command", driver._check_work())
    assert read_manifest(driver.dir)["machine"]["device"]
