"""From plain values (YAML, command line) to validated settings objects, with one clear message when they are wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from unlearn_core.checks import InputError, close_names
from unlearn_core.registry import Registry

T = TypeVar("T")


def build(cls: type[T], raw: Mapping[str, Any], where: str) -> T:
    """An instance of the settings dataclass `cls`, numbers cast to their declared types, defaults filled in.

    Raises: InputError naming the field (prefixed by `where`), the value and the fix.
    """
    known = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for key in raw:
        if key not in known:
            raise InputError(f"{where}.{key} is unknown; {close_names(str(key), known)}")
    try:
        return TypeAdapter(cls).validate_python(dict(raw))
    except ValidationError as problem:
        raise InputError(explain(problem, where)) from None


def explain(problem: ValidationError, where: str) -> str:
    """One line for the first thing that is wrong."""
    error = problem.errors()[0]
    field = ".".join([where, *map(str, error["loc"])])
    if error["type"] == "value_error":
        return f"{where}: {error['msg'].removeprefix('Value error, ')}"
    if error["type"] in ("missing", "missing_argument"):
        return f"{field} is missing"
    return f"{field}: {error['msg']}, but got {error['input']!r}"


def choose(registry: Registry[Any], raw: Any, where: str) -> Any:
    """A settings object from the registry: `raw` is a name, or a mapping with `name` and settings."""
    if isinstance(raw, str):
        raw = {"name": raw}
    if not isinstance(raw, Mapping) or not isinstance(raw.get("name"), str):
        raise InputError(f"{where} must be a name or a mapping with a `name`, but got {raw!r}")
    cls = registry.get(raw["name"])
    return build(cls, {k: v for k, v in raw.items() if k != "name"}, f"{where}.{raw['name']}")


def as_dict(name: str, settings: Any) -> dict[str, Any]:
    """Name and all settings, as JSON-ready values; what identifies the object."""
    return {"name": name, **plain(dataclasses.asdict(settings))}


def plain(value: Any) -> Any:
    """Tuples as lists, mappings and lists walked: what JSON would give back."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    return value
