"""What a test of the hypotheses is: data and extractor, attacks, and how minimisers are compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import unlearn_core.attacks
import unlearn_core.datasets
import unlearn_core.models  # noqa: F401 - these imports fill the registries
from sweeps.config import presets
from sweeps.config.labels import check_label, check_name
from sweeps.config.settings import as_dict, build, check_keys, choose, plain
from unlearn_core import checks
from unlearn_core.checks import InputError, shown
from unlearn_core.datasets.features import Features
from unlearn_core.registry import ATTACKS
from unlearn_core.types import Attack

PRESETS = Path(__file__).parent / "presets"
SPACES = ("inputs", "features")
KEYS = ("name", "features", "attacks", "protocol")


class Attacked(NamedTuple):
    """An attack and the space it acts in: the data set's inputs, or the frozen features themselves."""

    name: str
    settings: Attack
    acts_on: str

    def to_dict(self) -> dict[str, Any]:
        return as_dict(self.name, self.settings) | {"acts_on": self.acts_on}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How both hypotheses are tested; the same for all attacks."""

    seeds: int = 10  # draws of the poisons, of what is removed and of its order
    decay: float = 1e-3  # weight decay of both linear models
    shares: tuple[float, ...] = (0.1, 0.25, 0.5, 0.75, 1.0)  # of the poisons, or of as many clean rows, are removed
    orthogonality_seeds: int = 5  # the first of the seeds, on which directions are compared too
    batch_size: int = 128  # rows of a mini-batch
    batches: int = 100  # mini-batches whose direction is looked at
    steps: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100)  # of gradient descent, after which the update is
    ranks: tuple[float, ...] = (0.02, 0.05, 0.1, 0.2, 0.5)  # singular vectors, as a share of the number of weights

    def __post_init__(self) -> None:
        checks.in_range("seeds", self.seeds, 2, 10_000)
        checks.positive(decay=self.decay)
        checks.in_range("orthogonality_seeds", self.orthogonality_seeds, 0, self.seeds)
        for name, values, most in (("shares", self.shares, 1), ("steps", self.steps, 10**6), ("ranks", self.ranks, 1)):
            checks.increasing(name, values)
            checks.in_range(name, values[0], 1e-9, most)
            checks.in_range(name, values[-1], 1e-9, most)
        if self.shares[-1] != 1:
            raise InputError(f"shares must end with 1, all poisons, on which verdicts rest, but got {self.shares!r}")
        checks.in_range("batch_size", self.batch_size, 1, 10**7)
        checks.in_range("batches", self.batches, 1, 10**6)


class Hypotheses(NamedTuple):
    """A whole test. Built by `from_dict`; `to_dict` has every default filled in."""

    name: str
    features: Features
    attacks: dict[str, Attacked]
    protocol: Protocol

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Hypotheses:
        """Raises InputError for anything unknown, missing or out of range."""
        check_keys(raw, KEYS)
        for key in ("name", "features", "attacks"):
            if key not in raw:
                raise InputError(f"{key} is missing")
        protocol = build(Protocol, raw.get("protocol") or {}, "protocol")
        features = build(Features, raw["features"], "features")
        return cls(check_name("name", raw["name"]), features, _attacks(raw["attacks"], protocol), protocol)

    def to_dict(self) -> dict[str, Any]:
        attacks = [{"label": label, **attacked.to_dict()} for label, attacked in self.attacks.items()]
        features, protocol = (plain(dataclasses.asdict(part)) for part in (self.features, self.protocol))
        return {"name": self.name, "features": features, "attacks": attacks, "protocol": protocol}


def _attacks(raw: Any, protocol: Protocol) -> dict[str, Attacked]:
    if not isinstance(raw, list) or not raw:
        raise InputError(f"attacks must be a list that is not empty, but got {shown(raw)}")
    attacks: dict[str, Attacked] = {}
    for item in raw:
        given = {"name": item} if isinstance(item, str) else item
        if not isinstance(given, Mapping):
            raise InputError(f"attacks must be names or mappings with a `name`, but one is {shown(item)}")
        acts_on = given.get("acts_on", SPACES[0])
        checks.one_of("attacks.acts_on", acts_on, SPACES)
        settings = choose(ATTACKS, {k: v for k, v in given.items() if k not in ("label", "acts_on")}, "attacks")
        label = check_label("attacks.label", given.get("label", given["name"]))
        if label in attacks:
            raise InputError(f"attacks name {label!r} twice; give one of them another `label`")
        if (decay := getattr(settings, "weight_decay", protocol.decay)) != protocol.decay:
            raise InputError(
                f"attacks.{label}.weight_decay is what the victim has, {protocol.decay!r} (protocol.decay), but is "
                f"{decay!r}; set it to that"
            )
        attacks[label] = Attacked(given["name"], settings, acts_on)
    return attacks


def preset_names() -> list[str]:
    """Names of the presets of the hypotheses, in order."""
    return presets.preset_names(PRESETS)


def read_preset(name: str) -> dict[str, Any]:
    """The settings of a preset; an unknown name raises InputError with the nearest ones."""
    return presets.read_preset(name, PRESETS) | {"name": f"hypotheses-{name}"}
