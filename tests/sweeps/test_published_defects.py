"""Defects of published sweeps: results kept under keys that lack what they depend on."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from sweeps.schema.digest import digest
from sweeps.storage.artifacts import Artifact, ArtifactStore
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from sweeps.trials.trial import Request, trial_id
from tests.sweeps.tiny import tiny
from unlearn_core.registry import ATTACKS, MODELS, UNLEARNERS


def variants(settings: Any) -> Iterator[tuple[str, Any]]:
    """Each field's name, with the settings in which that field alone has another value (of any kind)."""
    for field in dataclasses.fields(settings):
        other = copy.copy(settings)
        object.__setattr__(other, field.name, "something else")
        yield field.name, other


def defaults(registry: Any) -> dict[str, Any]:
    """The entries of a registry that have a default for every setting."""
    made = {}
    for name in registry.names():
        fields = dataclasses.fields(registry.get(name))
        if all(f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING for f in fields):
            made[name] = registry.get(name)()
    return made


def request(method: str, settings: Any) -> Request:
    return Request(
        attack="badnets", seed=1, discovery_rate=1.0, stage="tuning", method=method, settings=settings,
        budgets=(0.1,), study="s",
    )  # fmt: skip


@pytest.mark.parametrize("method", UNLEARNERS.names())
def test_defect_02_every_setting_of_a_method_is_in_its_trials_identity(method: str, tmp_path: Path) -> None:
    """A published cache left out the forget set's batch size, which its sweep varied: one result stood for all."""
    work, settings = ScenarioCache(tiny(), RunEnvironment(tmp_path)), UNLEARNERS.get(method)()
    ids = {"as it is": trial_id(work, request(method, settings))}
    ids |= {field: trial_id(work, request(method, other)) for field, other in variants(settings)}
    assert len(set(ids.values())) == len(ids)


def test_defect_02_methods_with_equal_settings_are_told_apart(tmp_path: Path) -> None:
    work = ScenarioCache(tiny(), RunEnvironment(tmp_path))
    ids = [trial_id(work, request(name, settings)) for name, settings in defaults(UNLEARNERS).items()]
    assert len(ids) == len(set(ids)) > 20


class KeptError(Exception):
    """Carries what an artifact would have been kept under."""


def key(monkeypatch: pytest.MonkeyPatch, use: Callable[[], Any]) -> str:
    """The key under which `use` first looks for an artifact."""

    def get(self: ArtifactStore, kind: str, recipe: Mapping[str, Any], make: Callable[[], Artifact]) -> Artifact:
        raise KeptError(digest({"kind": kind, "recipe": dict(recipe)}))

    with monkeypatch.context() as patch:
        patch.setattr(ArtifactStore, "get", get)
        with pytest.raises(KeptError) as kept:
            use()
    return str(kept.value)


def trained_key(monkeypatch: pytest.MonkeyPatch, out: Path, seed: int = 0, **changes: Any) -> str:
    """Of a model that is trained in the sweep with these parts exchanged."""
    sweep = dataclasses.replace(tiny(), **changes)
    work = ScenarioCache(sweep, RunEnvironment(out))
    scenario = ScenarioCache(tiny(), RunEnvironment(out)).scenario("badnets", seed)
    return key(monkeypatch, lambda: work._trained(scenario, scenario.dataset.train, "train", {"poison": "p"}))


def test_defect_02_every_setting_of_a_training_is_in_its_models_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sweep = tiny()
    keys = {"as it is": trained_key(monkeypatch, tmp_path), "seed": trained_key(monkeypatch, tmp_path, seed=1)}
    for field, recipe in variants(sweep.recipe):
        keys[f"recipe.{field}"] = trained_key(monkeypatch, tmp_path, recipe=recipe)
    for name, settings in defaults(MODELS).items():
        if name != sweep.model[0]:
            keys[name] = trained_key(monkeypatch, tmp_path, model=(name, settings))
        for field, other in variants(settings):
            if field != "pretrained":  # weights count by their content, of which there is none here: test_text.py
                keys[f"{name}.{field}"] = trained_key(monkeypatch, tmp_path, model=(name, other))
    assert "recipe.batch_size" in keys and "resnet9.width" in keys
    assert len(set(keys.values())) == len(keys)


@pytest.mark.parametrize("name", sorted(defaults(ATTACKS)))
def test_defect_02_every_setting_of_an_attack_is_in_its_poisons_key(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = defaults(ATTACKS)[name]

    def poisons_key(chosen: Any, seed: int = 0) -> str:
        work = ScenarioCache(dataclasses.replace(tiny(), attacks={"a": (name, chosen)}), RunEnvironment(tmp_path))
        return key(monkeypatch, lambda: work._poisoned("a", seed))

    keys = {"as it is": poisons_key(settings), "seed": poisons_key(settings, 1)}
    keys |= {field: poisons_key(other) for field, other in variants(settings)}
    assert len(set(keys.values())) == len(keys)
