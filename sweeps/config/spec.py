"""What a sweep is: validated once at the edge, hashed by its full contents, the same object in driver and workers."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import unlearn_core.attacks
import unlearn_core.datasets
import unlearn_core.models
import unlearn_core.unlearners  # noqa: F401 - these imports fill the registries
from sweeps.config.hints import list_hint, place_hint, share_hint
from sweeps.config.plugins import Plugin, digests, load_plugins
from sweeps.config.presets import read_preset
from sweeps.config.settings import as_dict, build, check_keys, choose, key_text, plain
from sweeps.schema.digest import digest
from unlearn_core import SCIENCE_VERSION, checks
from unlearn_core.checks import InputError, shown
from unlearn_core.registry import ATTACKS, DATASETS, METRICS, MODELS, UNLEARNERS
from unlearn_core.training import Recipe
from unlearn_core.types import Composite

REFERENCE_METHODS = ("retrain", "retrain_at_budget", "retrain_discovered")
SINGLE = 0.0  # discovery rate: the least there is, one poison of however many the attack makes
LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.=-]{0,79}")
TAKEN = ("store", "mlflow.db", "mlartifacts")  # what lies beside the sweeps in an output folder
MOST_SEED = 2**63 - 1
MOST_SEEDS = 1000  # of a list
MOST_SCENARIOS = 5000  # each is checked before anything starts
MOST_PROPOSALS = 100_000
MOST_SECONDS = 30 * 24 * 3600.0
LEAST_MEMBERS, MOST_MEMBERS = 8, 10_000  # of an ensemble: U-LiRA fits Gaussians to three pairs of shadows at least


@dataclass(frozen=True, kw_only=True)
class DataRows:
    """Which part of the data set is used, and how large images are."""

    train_rows: int | None = None  # all rows by default
    held_out_rows: int | None = None
    validation_share: float = 1 / 3  # of the held-out rows; tuning sees these, reported numbers the others
    side: int | None = None  # height and width that images are resized to, in pixels; as they are by default

    def __post_init__(self) -> None:
        checks.positive(**{k: v for k, v in dataclasses.asdict(self).items() if v is not None})
        checks.in_range("validation_share", self.validation_share, 0.01, 0.99)

    def to_dict(self) -> dict[str, Any]:
        """Without a `side` that changes nothing: what was identified before there was one stays itself."""
        return {k: v for k, v in dataclasses.asdict(self).items() if (k, v) != ("side", None)}


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """Scenario seeds: hyperparameters are chosen on the first, every reported number comes from the second."""

    tuning: tuple[int, ...] = (0,)
    confirmation: tuple[int, ...] = (1, 2, 3)

    def __post_init__(self) -> None:
        for name, seeds in dataclasses.asdict(self).items():
            if len(seeds) > MOST_SEEDS:
                raise InputError(f"{name} lists {len(seeds):,} seeds; list at most {MOST_SEEDS:,}")
            if not seeds or len(set(seeds)) < len(seeds):
                raise InputError(f"{name} must list distinct seeds and not be empty, but got {shown(list(seeds))}")
            checks.in_range(name, min(seeds), 0, MOST_SEED)
            checks.in_range(name, max(seeds), 0, MOST_SEED)
        both = sorted(set(self.tuning) & set(self.confirmation))
        if both:
            raise InputError(f"confirmation must not repeat tuning seeds, but both hold {both}; use fresh seeds")


@dataclass(frozen=True, kw_only=True)
class Search:
    """How each study proposes settings."""

    mode: str = "fair"  # one study per attack and method with equal trials; or `best`: the method is searched too
    sampler: str = "tpe"  # or random, grid
    trials: int = 8  # proposals per study; a grid has as many as it has points
    startup: int = 10  # TPE: proposals drawn at random before it models the history
    batch: int = 4  # TPE: proposals made from the same history, so that they can be tried at once
    grid_points: int = 3  # grid: points per numeric range
    seed: int = 0

    def __post_init__(self) -> None:
        checks.one_of("mode", self.mode, ("fair", "best"))
        checks.one_of("sampler", self.sampler, ("tpe", "random", "grid"))
        checks.in_range("trials", self.trials, 1, MOST_PROPOSALS)
        checks.in_range("batch", self.batch, 1, MOST_PROPOSALS)
        checks.in_range("grid_points", self.grid_points, 1, MOST_PROPOSALS)
        checks.in_range("seed", self.seed, 0, MOST_SEED)
        checks.not_negative(startup=self.startup)
        if self.mode == "best" and self.sampler == "grid":
            raise InputError("sampler 'grid' cannot search over methods (mode 'best'); use 'tpe' or 'random'")


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Retrainings for the metrics that compare distributions over them: KLOM, U-LiRA, the NeurIPS 2023 score.

    A scenario takes four trainings per member (a corrupted model, two oracles, a shadow model with half of the
    poisons), shared by all methods; a configuration chosen by a study then unlearns two of those per member.
    """

    members: int = 0  # models of each kind, even and at least 8; 0 leaves these metrics out
    scenarios: int = 1  # confirmation scenarios that get them: the first in which the attack took

    def __post_init__(self) -> None:
        checks.in_range("members", self.members, 0, MOST_MEMBERS)
        if self.members and (self.members < LEAST_MEMBERS or self.members % 2):
            raise InputError(
                f"members must be 0 (off) or an even number from {LEAST_MEMBERS}, but got {self.members!r}"
            )
        checks.in_range("scenarios", self.scenarios, 1, MOST_MEMBERS)

    def check_room(self, confirmation_seeds: int) -> None:
        """There are only as many scenarios as confirmation seeds."""
        if self.members and self.scenarios > confirmation_seeds:
            raise InputError(
                f"ensemble.scenarios is {self.scenarios}, more than confirmation seeds ({confirmation_seeds}); lower "
                "it or add seeds"
            )


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one task gets while it runs. Does not change any result."""

    cpus: float = 1
    gpus: float = 0  # 1: as large a share of one as the memory needs, measured at the start
    trial_timeout: float | None = None  # seconds until a trial is given up; by default far more than it can need

    def __post_init__(self) -> None:
        checks.positive(cpus=self.cpus)
        checks.not_negative(gpus=self.gpus)
        if self.trial_timeout is not None:
            checks.in_range("trial_timeout", self.trial_timeout, 1, MOST_SECONDS)
        for name, amount in (("cpus", self.cpus), ("gpus", self.gpus)):
            if amount > 1 and amount != int(amount):
                raise InputError(f"{name} above 1 must be a whole number, but got {amount!r}")


@dataclass(frozen=True, kw_only=True)
class Method:
    """An unlearner in a sweep: settings that are fixed, the others searched."""

    name: str
    fixed: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name in REFERENCE_METHODS:
            raise InputError(f"{self.name!r} is a reference and always runs; take it out of methods")
        settings = self.build({})  # as these hold them: `lr: 1` and `lr: 1.0` are the same sweep
        object.__setattr__(self, "fixed", {key: plain(getattr(settings, key)) for key in self.fixed})

    def build(self, chosen: Mapping[str, Any]) -> Any:
        """The unlearner with its fixed and its `chosen` settings."""
        return build(UNLEARNERS.get(self.name), {**chosen, **self.fixed}, f"methods.{self.name}")

    def space(self) -> dict[str, Any]:
        """Ranges of the settings that are searched."""
        full = UNLEARNERS.get(self.name).search_space()
        return {k: v for k, v in full.items() if k not in self.fixed}


@dataclass(frozen=True)
class Sweep:
    """A whole sweep. Built by `from_dict`; `to_dict` is its canonical form with every default filled in.

    Without methods it trains and measures the references of the confirmation scenarios, and nothing else.
    """

    name: str
    dataset: tuple[str, Any]
    rows: DataRows
    model: tuple[str, Any]
    recipe: Recipe
    attacks: dict[str, tuple[str, Any]]
    methods: dict[str, Method]
    discovery_rates: tuple[float, ...]
    budgets: tuple[float, ...]
    seeds: Seeds
    search: Search
    utility_tolerance: float
    ensemble: Ensemble
    resources: Resources
    plugins: tuple[Plugin, ...] = ()

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Sweep:
        """Raises InputError for anything unknown, missing or out of range."""
        if not isinstance(raw, Mapping):
            raise InputError(f"a sweep must be a mapping of settings, but got {shown(raw)}")
        _check_place(raw)
        check_keys(raw, [f.name for f in dataclasses.fields(cls)])
        for key in ("name", "dataset", "model", "attacks", "methods"):
            if key not in raw:
                raise InputError(f"{key} is missing")
        plugins = load_plugins(raw.get("plugins", []))  # before the names that they add are looked up
        made = cls(
            name=check_name("name", raw["name"]),
            dataset=_named(DATASETS, raw["dataset"], "dataset"),
            rows=build(DataRows, _mapping(raw, "rows"), "rows"),
            model=_named(MODELS, raw["model"], "model"),
            recipe=build(Recipe, _mapping(raw, "recipe"), "recipe"),
            attacks=_attacks(_sequence(raw, "attacks")),
            methods=_methods(_sequence(raw, "methods", empty=True)),
            discovery_rates=_discovery_rates(raw.get("discovery_rates", [1.0])),
            budgets=tuple(sorted_budgets(raw.get("budgets", [0.02, 0.04, 0.06, 0.08, 0.1]))),
            seeds=build(Seeds, _mapping(raw, "seeds"), "seeds"),
            search=build(Search, _mapping(raw, "search"), "search"),
            utility_tolerance=_number(raw.get("utility_tolerance", 0.02), "utility_tolerance", 0, 1),
            ensemble=build(Ensemble, _mapping(raw, "ensemble"), "ensemble"),
            resources=build(Resources, _mapping(raw, "resources"), "resources"),
            plugins=plugins,
        )
        made.ensemble.check_room(len(made.seeds.confirmation))
        scenarios = len(made.attacks) * len(made.scenario_seeds)
        if scenarios > MOST_SCENARIOS:
            raise InputError(
                f"attacks and seeds make {scenarios:,} scenarios, more than {MOST_SCENARIOS:,}; list fewer of them"
            )
        return made

    @classmethod
    def preset(cls, name: str, changes: Mapping[str, Any] | None = None) -> Sweep:
        """A ready sweep, changed as with `--set`; changes that matter give it a name with a hash.

        Args:
            name: of the preset, such as "quick".
            changes: new values by dotted path, such as {"search.trials": 2, "attacks.gaussian.epsilon": 0.5}.

        Raises:
            InputError: for anything unknown or out of range.
        """
        from sweeps.config.naming import changed_sweep  # which builds on this class

        return changed_sweep(read_preset(name), list((changes or {}).items()))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, every setting filled in; `from_dict` reads it back."""
        whole = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        sections = ("recipe", "seeds", "search", "ensemble", "resources")
        whole |= {name: dataclasses.asdict(getattr(self, name)) for name in sections} | {"rows": self.rows.to_dict()}
        whole["dataset"], whole["model"] = as_dict(*self.dataset), as_dict(*self.model)
        whole["discovery_rates"] = ["single" if rate == SINGLE else rate for rate in self.discovery_rates]
        whole["attacks"] = [{"label": label, **as_dict(*named)} for label, named in self.attacks.items()]
        whole["methods"] = [dataclasses.asdict(method) for method in self.methods.values()]
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
        return (*self.seeds.confirmation, *(self.seeds.tuning if self.methods else ()))

    def group(self, attack: str, data_digest: str) -> dict[str, Any]:
        """What identifies a scenario group: a scenario without its seed."""
        return {
            "dataset": as_dict(*self.dataset),
            "rows": self.rows.to_dict(),
            "data_digest": data_digest,
            "model": as_dict(*self.model),
            "recipe": plain(dataclasses.asdict(self.recipe)),
            "attack": as_dict(*self.attacks[attack]),
            **self.start(),
            **self.made_by(dataset=[self.dataset[0]], model=[self.model[0]], attack=self.attack_names(attack)),
        } | _SCIENCE


SECTIONS: dict[str, type] = {
    "recipe": Recipe, "rows": DataRows, "seeds": Seeds, "search": Search, "ensemble": Ensemble, "resources": Resources
}  # fmt: skip


def _check_place(raw: Mapping[str, Any]) -> None:
    """Raises InputError for a key that belongs into a section."""
    for key in raw:
        if isinstance(key, str) and key not in Sweep.__dataclass_fields__:
            hint = place_hint(key, raw, SECTIONS)
            if hint:
                raise InputError(f"{key} is unknown here; {hint}")


_SCIENCE = {"science_version": SCIENCE_VERSION}


def check_label(field_name: str, value: Any) -> str:
    """Names become folder names: letters, digits and `_.=-` only, so that none can leave the output folder."""
    if not isinstance(value, str) or not LABEL.fullmatch(value):
        raise InputError(f"{field_name} must be letters, digits and _.=- (at most 80), but got {shown(value)}")
    return value


def check_name(field_name: str, value: Any) -> str:
    """A sweep's name: a label that is free in the output folder."""
    if check_label(field_name, value) in TAKEN:
        raise InputError(f"{field_name} {value!r} is taken: the output folder keeps something else there")
    return str(value)


def sorted_budgets(raw: Any) -> list[float]:
    """The budgets as numbers; they must lie in (0, 1] and increase."""
    budgets = [_number(value, "budgets", 0, 1) for value in (raw if isinstance(raw, (list, tuple)) else [raw])]
    checks.increasing("budgets", budgets)
    if budgets[0] <= 0:
        raise InputError(f"budgets must be above 0, but got {budgets[0]!r}")
    return budgets


def _number(value: Any, where: str, low: float, high: float) -> float:
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if number != number:
        raise InputError(f"{where} must be a number in [{low:g}, {high:g}], but got {shown(value)}{share_hint(value)}")
    if not low <= number <= high:
        raise InputError(f"{where} must lie in [{low:g}, {high:g}], but got {shown(number)}{share_hint(number)}")
    return number


def _discovery_rate(value: Any) -> float:
    if value == "single":
        return SINGLE
    rate = _number(value, "discovery_rates other than `single`", 0, 1)
    if rate == 0:
        raise InputError(f"discovery_rates must be above 0, but got {value!r}; write `single` for one poison")
    return rate


def _discovery_rates(raw: Any) -> tuple[float, ...]:
    """Shares of the poisons in (0, 1]; the word `single` stands for one poison."""
    rates = tuple(map(_discovery_rate, raw if isinstance(raw, (list, tuple)) else [raw]))
    if not rates or len(set(rates)) < len(rates):
        raise InputError(
            f"discovery_rates must list distinct numbers in (0, 1], or `single` for one poison, but got {shown(raw)}"
        )
    return rates


def _mapping(raw: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = raw.get(key)
    if not isinstance(value, Mapping | None):
        raise InputError(f"{key} must be a mapping of settings, but got {shown(value)}")
    return dict(value or {})


def _sequence(raw: Mapping[str, Any], key: str, *, empty: bool = False) -> list[Any]:
    value = raw[key]
    if isinstance(value, (str, Mapping)):
        value = [value]
    for item in value if isinstance(value, (list, tuple)) else ():
        if hint := list_hint(item):
            raise InputError(f"{key} must list names one by one, but got {shown(item)}{hint}")
    if not isinstance(value, (list, tuple)) or not (value or empty):
        raise InputError(f"{key} must be a list{'' if empty else ' that is not empty'}, but got {shown(value)}")
    return list(value)


def _named(registry: Any, raw: Any, where: str) -> tuple[str, Any]:
    settings = choose(registry, raw, where)
    return (raw if isinstance(raw, str) else raw["name"]), settings


def _attacks(raw: list[Any]) -> dict[str, tuple[str, Any]]:
    attacks: dict[str, tuple[str, Any]] = {}
    for item in raw:
        rest = {k: v for k, v in item.items() if k != "label"} if isinstance(item, Mapping) else item
        named = _named(ATTACKS, rest, "attacks")
        label = item.get("label", named[0]) if isinstance(item, Mapping) else named[0]
        check_label("attacks.label", label)
        if label in attacks:
            raise InputError(f"attacks name {label!r} twice; give one of them another `label`")
        if named in attacks.values():
            raise InputError(f"attacks list the same settings twice, the second time as {label!r}; take one out")
        attacks[label] = named
    return attacks


def _methods(raw: list[Any]) -> dict[str, Method]:
    methods: dict[str, Method] = {}
    for item in raw:
        stray = [key for key in item if key not in ("name", "fixed")] if isinstance(item, Mapping) else []
        if stray:
            raise InputError(
                f"methods.{key_text(stray[0])} is unknown; an item has `name` and, for its settings, `fixed`"
            )
        method = build(Method, {"name": item} if isinstance(item, str) else item, "methods")
        if method.name in methods:
            raise InputError(f"methods name {method.name!r} twice; list each method once")
        methods[method.name] = method
    return methods
