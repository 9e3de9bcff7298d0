"""What counting the trials of a sweep needs to know of it: names and numbers, but no attack, method or model itself.

`sweep.json` says all of it, so that the state of a sweep can be shown without loading torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from sweeps.config.catalogue import catalogue
from sweeps.config.sections import Ensemble, Resources, Search, Seeds
from sweeps.config.shares import SINGLE
from unlearn_core.space import Range


class SearchedMethod(Protocol):
    """A method, as far as its search space."""

    @property
    def name(self) -> str: ...

    @property
    def fixed(self) -> Mapping[str, Any]: ...

    def space(self) -> Mapping[str, Range]:
        """Ranges of the settings that are searched."""
        ...


class Outline(Protocol):
    """A sweep, or what is known of one without its registries."""

    @property
    def name(self) -> str: ...
    @property
    def attacks(self) -> Mapping[str, Any]: ...
    @property
    def methods(self) -> Mapping[str, SearchedMethod]: ...
    @property
    def discovery_rates(self) -> tuple[float, ...]: ...
    @property
    def budgets(self) -> tuple[float, ...]: ...
    @property
    def seeds(self) -> Seeds: ...
    @property
    def search(self) -> Search: ...
    @property
    def ensemble(self) -> Ensemble: ...
    @property
    def resources(self) -> Resources: ...
    @property
    def scenario_seeds(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class RecordedMethod:
    """A method of the catalogue in a recorded sweep."""

    name: str
    fixed: Mapping[str, Any]
    full_space: Mapping[str, Range]

    def space(self) -> Mapping[str, Range]:
        """Ranges of the settings that are searched."""
        return {name: span for name, span in self.full_space.items() if name not in self.fixed}


@dataclass(frozen=True)
class RecordedSweep:
    """An outline that was read from `sweep.json`."""

    name: str
    attacks: Mapping[str, Any]
    methods: Mapping[str, RecordedMethod]
    discovery_rates: tuple[float, ...]
    budgets: tuple[float, ...]
    seeds: Seeds
    search: Search
    ensemble: Ensemble
    resources: Resources

    @property
    def scenario_seeds(self) -> tuple[int, ...]:
        """Seeds of all scenarios, those that are reported first; without methods there is nothing to tune."""
        return self.seeds.scenarios(self.methods)


def outline_of(spec: Mapping[str, Any]) -> Outline:
    """The outline of the sweep that a manifest describes.

    Args:
        spec: `spec` of `sweep.json`. One with methods that the catalogue does not know (those of plug-ins), or without
            what this version writes, is read in full.

    Raises:
        InputError: if a setting is out of range.
    """
    try:
        return _recorded(spec)
    except (KeyError, TypeError):
        from sweeps.config.spec import Sweep  # loads torch

        return Sweep.from_dict(spec)


def _recorded(spec: Mapping[str, Any]) -> RecordedSweep:
    """Raises KeyError or TypeError if the catalogue, or this version, does not know something in it."""
    spaces = {entry.name: entry.space for entry in catalogue() if entry.kind == "unlearner"}
    methods = [RecordedMethod(m["name"], m["fixed"], spaces[m["name"]]) for m in spec["methods"]]
    return RecordedSweep(
        name=spec["name"],
        attacks={attack["label"]: attack for attack in spec["attacks"]},
        methods={method.name: method for method in methods},
        discovery_rates=tuple(SINGLE if rate == "single" else rate for rate in spec["discovery_rates"]),
        budgets=tuple(spec["budgets"]),
        seeds=Seeds(**{name: tuple(seeds) for name, seeds in spec["seeds"].items()}),
        search=Search(**spec["search"]),
        ensemble=Ensemble(**spec["ensemble"]),
        resources=Resources(**spec["resources"]),
    )
