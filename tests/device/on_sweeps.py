"""Whole sweeps on the pretended device, by the driver and the workers' own code in this process."""

from __future__ import annotations

import gc
import math
from collections import Counter
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch

from sweeps.commands.driver import Driver
from sweeps.commands.run import main
from sweeps.config.spec import Sweep
from sweeps.execution import limits
from sweeps.execution.gpu_share import try_out
from sweeps.schema.records import GOOD
from sweeps.storage.record_log import Trial, read_trials
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from sweeps.trials.trial import Reference, Request, run_trial
from tests.device.pretended import PretendedDevice
from tests.sweeps.tiny import run_all, tiny, write_config
from unlearn_core.registry import UNLEARNERS

METHODS = [name for name in UNLEARNERS.names() if not name.startswith("retrain")]
EVERYTHING: dict[str, Any] = {
    "model": {"name": "convnet", "width": 2},
    "methods": METHODS,
    "search": {"trials": 1},
    "budgets": [0.3],
    "recipe": {"epochs": 6, "batch_size": 50, "lr": 0.05},
    "resources": {"gpus": 0.5},
}
NUMBERS = ("method", "stage", "proposal", "seed", "held_out")  # what tells the trials of one scenario apart
MEASURED = ("test_accuracy", "flops", "steps", "budget_spent")


@pytest.fixture
def left(gpu: PretendedDevice, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Bytes that trials left on the device, by method; the garbage collector rests meanwhile."""
    found: Counter[str] = Counter()

    def watched(work: ScenarioCache, request: Request, reference: Reference) -> Trial:
        gc.collect()
        before = gpu.ledger.alive
        trial = run_trial(work, request, reference)
        found[request.method] += gpu.ledger.alive - before
        return trial

    monkeypatch.setattr(limits, "run_trial", watched)
    gc.disable()
    yield found
    gc.enable()


def drive(tmp_path: Path, **changes: Any) -> list[Trial]:
    """A sweep by the command, as users run it."""
    config = write_config(tmp_path, **changes)
    fixed = ["--config", config, "--out", tmp_path / "out", "--inline", "--no-tracking"]
    assert main([*map(str, fixed)]) == 0
    return read_trials(tmp_path / "out" / "tiny")


def check_done(trials: list[Trial]) -> None:
    assert [trial.error for trial in trials if trial.error] == []
    rungs = [rung for trial in trials for rung in trial.rungs]
    assert {rung.status for rung in rungs} <= set(GOOD)
    assert all(math.isfinite(value) for rung in rungs if (value := rung.test_accuracy) is not None)


def test_all_methods_by_the_driver(
    gpu: PretendedDevice, left: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Driver, "_analyse", lambda self: 0)
    trials = drive(tmp_path, **EVERYTHING)
    check_done(trials)
    assert {trial.method for trial in trials} >= {*METHODS, "none", "oracle", "retrain_at_budget"}
    peaks = [r.peak_memory_bytes for t in trials if t.stage == "confirmation" for r in t.rungs]
    assert min(peaks) > 0
    assert left.keys() >= set(METHODS)
    assert not any(left.values()), left


@pytest.mark.parametrize(
    "changes",
    [
        dict(),
        dict(methods=["gd"], search={"trials": 1}, budgets=[0.3], ensemble={"members": 8, "scenarios": 1}),
        dict(
            dataset={"name": "opinions"},
            model={"name": "gpt2", "layers": 1, "width": 16, "heads": 2},
            rows={"train_rows": 100, "held_out_rows": 60},
            attacks=[{"name": "gaussian", "fraction": 0.2, "epsilon": 1.0}],
            recipe={"epochs": 2, "batch_size": 50, "optimizer": "adamw", "lr": 3e-3},
            methods=["gd"],
            search={"trials": 1},
            budgets=[0.5],
        ),
    ],
    ids=["images", "ensemble", "text"],
)
def test_a_sweep_gives_the_numbers_of_the_cpu(gpu: PretendedDevice, changes: dict[str, Any], tmp_path: Path) -> None:
    recipe = {"epochs": 6, "batch_size": 50, "lr": 0.05} | changes.get("recipe", {}) | {"bf16": False}
    sweep = tiny(**changes | {"recipe": recipe})
    found, expected = (
        numbers(sweep, RunEnvironment(tmp_path / device, device=device, gpus=share))
        for device, share in (("cuda", 0.5), ("cpu", 0.0))
    )
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, rel=1e-2, abs=1e-2, nan_ok=True), key


def numbers(sweep: Sweep, place: RunEnvironment) -> dict[tuple[Any, ...], list[float]]:
    """What a sweep measured, by trial."""
    run_all(ScenarioCache(sweep, place), place.out / sweep.name)
    trials = read_trials(place.out / sweep.name)
    check_done(trials)
    return {
        attrgetter(*NUMBERS)(trial): [
            math.nan if value is None else value for rung in trial.rungs for value in attrgetter(*MEASURED)(rung)
        ]
        for trial in trials
    }


def test_memory_is_tried_out(gpu: PretendedDevice, tmp_path: Path) -> None:
    try_out(ScenarioCache(tiny(), RunEnvironment(tmp_path, device="cuda", gpus=0.5)))
    assert torch.cuda.max_memory_allocated() > 0
