"""What a sweep chooses by name from the registries: data set, model, attacks, methods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sweeps.config.hints import list_hint
from sweeps.config.labels import check_label
from sweeps.config.settings import build, choose, key_text, plain
from unlearn_core.checks import InputError, shown
from unlearn_core.registry import ATTACKS, UNLEARNERS, Registry
from unlearn_core.types import Attack, Unlearner

T = TypeVar("T")
REFERENCE_METHODS = ("retrain", "retrain_at_budget", "retrain_discovered")


@dataclass(frozen=True, kw_only=True)
class Method:
    """An unlearner in a sweep: settings that are fixed, the others searched."""

    name: str  # name of an unlearner
    fixed: dict[str, Any] = field(default_factory=dict)  # settings by name; all others are searched

    def __post_init__(self) -> None:
        if self.name in REFERENCE_METHODS:
            raise InputError(f"{self.name!r} is a reference and always runs; take it out of methods")
        settings = self.build({})  # as these hold them: `lr: 1` and `lr: 1.0` are the same sweep
        object.__setattr__(self, "fixed", {key: plain(getattr(settings, key)) for key in self.fixed})

    def build(self, chosen: Mapping[str, Any]) -> Unlearner:
        """The unlearner with its fixed and its `chosen` settings."""
        return build(UNLEARNERS.get(self.name), {**chosen, **self.fixed}, f"methods.{self.name}")

    def space(self) -> dict[str, Any]:
        """Ranges of the settings that are searched."""
        full = UNLEARNERS.get(self.name).search_space()
        return {k: v for k, v in full.items() if k not in self.fixed}


def read_named(registry: Registry[type[T]], raw: Any, where: str) -> tuple[str, T]:
    """Registered name and settings object of `raw`, a name or a mapping with a `name`."""
    settings = choose(registry, raw, where)
    return (raw if isinstance(raw, str) else raw["name"]), settings


def read_attacks(raw: Any) -> dict[str, tuple[str, Attack]]:
    """Attacks by label, which is their name where none is given."""
    attacks: dict[str, tuple[str, Attack]] = {}
    for item in _listed(raw, "attacks"):
        rest = {k: v for k, v in item.items() if k != "label"} if isinstance(item, Mapping) else item
        named = read_named(ATTACKS, rest, "attacks")
        label = check_label("attacks.label", item.get("label", named[0]) if isinstance(item, Mapping) else named[0])
        if label in attacks:
            raise InputError(f"attacks name {label!r} twice; give one of them another `label`")
        if named in attacks.values():
            raise InputError(f"attacks list the same settings twice, the second time as {label!r}; take one out")
        attacks[label] = named
    return attacks


def read_methods(raw: Any) -> dict[str, Method]:
    """Methods by name."""
    methods: dict[str, Method] = {}
    for item in _listed(raw, "methods", empty=True):
        for key in item if isinstance(item, Mapping) else ():
            if key not in ("name", "fixed"):
                raise InputError(
                    f"methods.{key_text(key)} is unknown; an item has `name` and, for its settings, `fixed`"
                )
        method = build(Method, {"name": item} if isinstance(item, str) else item, "methods")
        if method.name in methods:
            raise InputError(f"methods name {method.name!r} twice; list each method once")
        methods[method.name] = method
    return methods


def _listed(raw: Any, where: str, *, empty: bool = False) -> list[Any]:
    """Items of a list, or of a single one that is written without brackets."""
    value = [raw] if isinstance(raw, (str, Mapping)) else raw
    for item in value if isinstance(value, (list, tuple)) else ():
        if hint := list_hint(item):
            raise InputError(f"{where} must list names one by one, but got {shown(item)}{hint}")
    if not isinstance(value, (list, tuple)) or not (value or empty):
        raise InputError(f"{where} must be a list{'' if empty else ' that is not empty'}, but got {shown(value)}")
    return list(value)
