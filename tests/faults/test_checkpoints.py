"""The checkpoint that a model starts from is damaged while its sweep is unfinished."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.faults.harness import Sweep, Undisturbed, settle
from tests.sweeps.text_sweep import SIZE, checkpoint
from tests.sweeps.tiny import lines

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TEXT: dict[str, Any] = {
    "dataset": {"name": "opinions", "rows": 300, "vocabulary": 300},
    "rows": {"train_rows": 200},
    "recipe": {"epochs": 10, "batch_size": 25, "optimizer": "adamw", "lr": 5e-3},
    "attacks": [{"name": "label_flip", "fraction": 0.3}],
    "methods": ["counted_gd"],
    "search": {"trials": 4, "startup": 1},
}
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "one byte of a weight": lambda data: data[:-100] + bytes([data[-100] ^ 64]) + data[-99:],
    "one byte of the header": lambda data: data[:20] + bytes([data[20] ^ 64]) + data[21:],
    "the end": lambda data: data[: len(data) // 2],
    "everything": lambda data: b"",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("weights"), 0) / "model.safetensors"


@pytest.fixture(scope="module")
def from_weights(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed(sweep_from(weights, tmp_path_factory.mktemp("faults") / "from weights"))


def sweep_from(weights: Path, folder: Path) -> Sweep:
    model = {"name": "gpt2", **SIZE, "pretrained": str(weights.parent)}
    return Sweep(folder, "--inline", model=model, **TEXT)


def test_a_damaged_checkpoint_stops_the_sweep_until_it_is_restored(
    weights: Path, from_weights: Undisturbed, tmp_path: Path
) -> None:
    sweep, whole = sweep_from(weights, tmp_path / "sweep"), weights.read_bytes()
    assert sweep.run_until(lambda: sweep.records() > 8) == -signal.SIGKILL
    before = lines(sweep.dir)
    for damage in DAMAGES.values():
        weights.write_bytes(damage(whole))
        refused = sweep.start()
        sweep.wait(refused)
        assert refused.returncode == 2, sweep.said()
        assert "(made by other code or weights)" in sweep.said().splitlines()[-1]
        assert "Traceback" not in sweep.said()
        assert lines(sweep.dir) == before
    weights.write_bytes(whole)
    sweep.finish()
    settle(sweep, from_weights, "checkpoint of a base model damaged", tried=len(DAMAGES))


def test_a_checkpoint_damaged_under_a_running_sweep_changes_no_record(
    weights: Path, from_weights: Undisturbed, tmp_path: Path
) -> None:
    sweep, whole = sweep_from(weights, tmp_path / "sweep"), weights.read_bytes()
    process = sweep.start()
    assert sweep.wait(process, lambda: sweep.records() > 3), sweep.said()
    weights.write_bytes(DAMAGES["one byte of a weight"](whole))
    sweep.wait(process)
    assert process.returncode == 1, sweep.said()
    assert "weights that the model starts from were changed while the sweep runs" in sweep.said()
    weights.write_bytes(whole)
    sweep.finish()
    settle(sweep, from_weights, "checkpoint of a base model damaged")
