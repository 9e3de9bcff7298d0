"""What a sweep on text keeps, and what its trials are identified by."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sweeps.config.spec import Sweep
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.sweeps.text_sweep import SIZE, checkpoint
from tests.sweeps.tiny import RAW
from unlearn_core.checks import InputError
from unlearn_core.datasets import texts


def on_text(**model: object) -> Sweep:
    return Sweep.from_dict(
        RAW
        | {
            "dataset": {"name": "opinions", "rows": 200, "vocabulary": 300},
            "rows": {"train_rows": 100},
            "model": {"name": "gpt2", **SIZE, **model},
            "recipe": {"epochs": 1},
            "attacks": ["label_flip"],
        }
    )


def models(work: ScenarioCache) -> set[str]:
    return {path.name for path in (work.place.out / "store" / "model").glob("[!.]*")}  # type: ignore[operator]


def test_tokens_are_made_once_for_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = ScenarioCache(on_text(), RunEnvironment(tmp_path)).dataset

    def refuse(*_: object) -> str:
        raise AssertionError("learned again")

    monkeypatch.setattr(texts, "learn_rules", refuse)
    again = ScenarioCache(on_text(), RunEnvironment(tmp_path)).dataset
    assert again.digest == first.digest and again.tokenizer == first.tokenizer
    assert torch.equal(again.train.inputs, first.train.inputs) and again.train.inputs.dtype == torch.int64
    with pytest.raises(AssertionError, match="learned again"):
        _ = ScenarioCache(on_text(), RunEnvironment(tmp_path / "elsewhere")).dataset
    other = Sweep.from_dict(on_text().to_dict() | {"dataset": {"name": "opinions", "rows": 200, "seed": 1}})
    with pytest.raises(AssertionError, match="learned again"):
        _ = ScenarioCache(other, RunEnvironment(tmp_path)).dataset


def test_trials_are_identified_by_the_content_of_pretrained_weights(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "start", 0)
    sweep = on_text(pretrained=str(folder))
    work = ScenarioCache(sweep, RunEnvironment(tmp_path / "out"))
    before = sweep.identity(), work.group("label_flip")
    work.second_oracle("label_flip", 0)
    trained = models(work)
    assert len(trained) == 1
    checkpoint(folder, 1)
    assert sweep.identity() != before[0]
    assert work.group("label_flip") != before[1]
    work.second_oracle("label_flip", 0)
    assert len(models(work)) == 2 and trained < models(work)
    checkpoint(folder, 0)
    assert (sweep.identity(), work.group("label_flip")) == before


def test_without_pretrained_weights_nothing_is_added() -> None:
    assert on_text().start() == {}
    assert Sweep.from_dict(RAW).start() == {}


def test_missing_weights_are_told_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pretrained must be a folder with model.safetensors"):
        on_text(pretrained=str(tmp_path)).identity()
