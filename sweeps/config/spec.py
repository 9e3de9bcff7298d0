"""What a sweep is: validated once at the edge, hashed by its full contents, the same object in driver and workers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any

import unlearn_core.attacks
import unlearn_core.datasets
import unlearn_core.models
import unlearn_core.unlearners  # noqa: F401 - these imports fill the registries
from sweeps.config.choices import Method, read_attacks, read_methods, read_named
from sweeps.config.hints import place_hint
from sweeps.config.labels import check_name
from sweeps.config.overrides import Changes, changed
from sweeps.config.plugins import Plugin, digests, load_plugins
from sweeps.config.presets import read_preset
from sweeps.config.sections import DataRows, Ensemble, Resources, Search, Seeds
from sweeps.config.settings import as_dict, build, check_keys, plain
from sweeps.config.shares import SINGLE, read_budgets, read_rates, share
from sweeps.schema.digest import digest
from unlearn_core.checks import InputError, shown
from unlearn_core.ranges import within
from unlearn_core.registry import DATASETS, METRICS, MODELS
from unlearn_core.training.recipe import Recipe
from unlearn_core.types import Composite
from unlearn_core.version import SCIENCE_VERSION

MOST_SCENARIOS = 5000  # each is checked before anything starts
SECTIONS: dict[str, type] = {
    "rows": DataRows, "recipe": Recipe, "seeds": Seeds, "search": Search, "ensemble": Ensemble, "resources": Resources
}  # fmt: skip
_SCIENCE = {"science_version": SCIENCE_VERSION}


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A whole sweep. Built by `from_dict`; `to_dict` is its canonical form with every default filled in.

    Without methods it trains and measures the references of the confirmation scenarios, and nothing else.
    """

    name: str  # what sweep and folder are called: letters, digits and `_.=-`, at most 80
    dataset: tuple[str, Any]  # name of a data set, or a mapping with its `name` and settings
    model: tuple[str, Any]  # name of a model, or a mapping with its `name` and settings
    attacks: dict[str, tuple[str, Any]]  # list of attacks like `dataset`; `label` tells apart two of one name
    methods: dict[str, Method]  # list of unlearners: names, or mappings with `name` and `fixed` settings; may be empty
    rows: DataRows = field(default_factory=DataRows)  # which part of the data set is used
    recipe: Recipe = field(default_factory=Recipe)  # how a model is trained from scratch
    discovery_rates: tuple[float, ...] = (1.0,)  # shares of the poisons in the forget set; `single`: one poison
    budgets: Annotated[tuple[float, ...], within(0, 1)] = (0.02, 0.04, 0.06, 0.08, 0.1)  # shares of a training's FLOPs
    seeds: Seeds = field(default_factory=Seeds)  # seeds of the scenarios
    search: Search = field(default_factory=Search)  # how each study proposes settings
    utility_tolerance: Annotated[float, within(0, 1)] = 0.02  # loss of accuracy that costs nothing in the score
    ensemble: Ensemble = field(default_factory=Ensemble)  # retrainings for metrics that compare distributions
    resources: Resources = field(default_factory=Resources)  # what one task gets while it runs
    plugins: tuple[Plugin, ...] = ()  # list of Python files and entry points that add names (docs/plugins.md)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Sweep:
        """The sweep that plain values describe.

        Args:
            raw: Settings by key, as YAML or JSON give them.

        Raises:
            InputError: for anything unknown, missing or out of range.
        """
        if not isinstance(raw, Mapping):
            raise InputError(f"a sweep must be a mapping of settings, but got {shown(raw)}")
        _check_place(raw)
        check_keys(raw, READERS)
        for key in ("name", "dataset", "model", "attacks", "methods"):
            if key not in raw:
                raise InputError(f"{key} is missing")
        given = {key for key in raw if raw[key] is not None or key not in SECTIONS}
        made = cls(**{key: read(raw[key]) for key, read in READERS.items() if key in given})
        made._check_counts()
        return made

    def _check_counts(self) -> None:
        wanted, seeds = self.ensemble.scenarios, len(self.seeds.confirmation)
        if self.ensemble.members and wanted > seeds:
            raise InputError(
                f"ensemble.scenarios is {wanted}, more than confirmation seeds ({seeds}); lower it or add seeds"
            )
        if (made := len(self.attacks) * len(self.scenario_seeds)) > MOST_SCENARIOS:
            raise InputError(
                f"attacks and seeds make {made:,} scenarios, more than {MOST_SCENARIOS:,}; list fewer of them"
            )

    @classmethod
    def preset(cls, name: str, changes: Mapping[str, Any] | None = None) -> Sweep:
        """A ready sweep, changed as with `--set`; changes that matter give it a name with a hash.

        Args:
            name: Of the preset, such as "quick".
            changes: New values by dotted path, such as {"search.trials": 2, "attacks.gaussian.epsilon": 0.5}.

        Raises:
            InputError: for anything unknown or out of range.
        """
        return cls.changed(read_preset(name), list((changes or {}).items()))

    @classmethod
    def changed(cls, raw: Mapping[str, Any], changes: Changes, name: str | None = None) -> Sweep:
        """The sweep that `raw` describes once it is changed.

        Changes that matter give it a name with a hash, so that its results never mix with those of the sweep that it
        comes from.

        Args:
            raw: Settings, as a preset or a file holds them.
            changes: Dotted paths and their new values.
            name: What to call it instead.

        Raises:
            InputError: For anything unknown, missing or out of range.
        """
        sweep = cls.from_dict(changed(raw, changes))
        if name is not None:
            return replace(sweep, name=check_name("--name", name))
        if changes and sweep.differs_from(raw):
            return replace(sweep, name=check_name("name", f"{sweep.name}-{sweep.identity()[:8]}"))
        return sweep

    def differs_from(self, raw: Mapping[str, Any]) -> bool:
        """Whether this is another sweep than the one that `raw` alone describes (which may be nothing complete)."""
        try:
            return self.identity() != Sweep.from_dict(raw).identity()
        except InputError:
            return True

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, every setting filled in; `from_dict` reads it back."""
        whole = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        whole["rows"], whole["dataset"], whole["model"] = (
            self.rows.to_dict(),
            as_dict(*self.dataset),
            as_dict(*self.model),
        )
        whole["discovery_rates"] = ["single" if rate == SINGLE else rate for rate in self.discovery_rates]
        whole["attacks"] = [{"label": label, **as_dict(*named)} for label, named in self.attacks.items()]
        whole["methods"] = list(self.methods.values())
        whole["plugins"] = [{"source": plugin.source, "digest": plugin.digest} for plugin in self.plugins]
        return dict(plain(whole))

    def identity(self) -> str:
        """Hash of everything that can change a result (resources, the name and the places of plug-ins cannot)."""
        kept = {k: v for k, v in self.to_dict().items() if k not in ("name", "resources", "plugins")}
        attacks = [name for label in self.attacks for name in self.attack_names(label)]
        used = {"dataset": [self.dataset[0]], "model": [self.model[0]], "attack": attacks, "unlearner": self.methods}
        return digest(kept | _SCIENCE | self.start() | self.made_by(**used, metric=METRICS.names()))

    def start(self) -> dict[str, str]:
        """For identities: what the weights are that the model starts from; nothing if it starts from scratch."""
        read = getattr(self.model[1], "start_digest", None)
        found = read() if read else ""
        return {"start": found} if found else {}

    def attack_names(self, label: str) -> list[str]:
        """The registered name of an attack and, where it is made of others, theirs."""
        name, settings = self.attacks[label]
        return [name, *settings.primaries] if isinstance(settings, Composite) else [name]

    def made_by(self, **used: Iterable[str]) -> dict[str, list[str]]:
        """For identities: digests of the plug-ins that add the `used` names (by kind); nothing if there are none."""
        found = digests(self.plugins, used)
        return {"plugins": found} if found else {}

    @property
    def scenario_seeds(self) -> tuple[int, ...]:
        """Seeds of all scenarios, those that are reported first; without methods there is nothing to tune."""
        return self.seeds.scenarios(self.methods)

    def group(self, attack: str, data_digest: str) -> dict[str, Any]:
        """What identifies a scenario group: a scenario without its seed."""
        return {
            "dataset": as_dict(*self.dataset),
            "rows": self.rows.to_dict(),
            "data_digest": data_digest,
            "model": as_dict(*self.model),
            "recipe": plain(self.recipe),
            "attack": as_dict(*self.attacks[attack]),
            **self.start(),
            **self.made_by(dataset=[self.dataset[0]], model=[self.model[0]], attack=self.attack_names(attack)),
        } | _SCIENCE


READERS: dict[str, Callable[[Any], Any]] = {
    "plugins": load_plugins,  # before the names that they add are looked up
    "name": partial(check_name, "name"),
    "dataset": lambda raw: read_named(DATASETS, raw, "dataset"),
    "model": lambda raw: read_named(MODELS, raw, "model"),
    "attacks": read_attacks,
    "methods": read_methods,
    "discovery_rates": read_rates,
    "budgets": read_budgets,
    "utility_tolerance": lambda raw: share(raw, "utility_tolerance"),
    **{name: partial(build, SECTIONS[name], where=name) for name in SECTIONS},
}
"""How the plain value of each key becomes that of the field, in this order."""


def _check_place(raw: Mapping[str, Any]) -> None:
    """Raises InputError for a key that belongs into a section."""
    for key in raw:
        if isinstance(key, str) and key not in READERS and (hint := place_hint(key, raw, SECTIONS)):
            raise InputError(f"{key} is unknown here; {hint}")
