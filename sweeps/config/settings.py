"""From plain values (YAML, command line) to validated settings objects, with one clear message when they are wrong."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from sweeps.config.hints import list_hint
from unlearn_core.checks import InputError, close_names, shown
from unlearn_core.registry import Registry

T = TypeVar("T")
plain = to_jsonable_python
"""Tuples as lists, dataclasses and mappings as dicts: what JSON would give back."""
adapter = cache(TypeAdapter[Any])
"""What checks and casts the fields of a dataclass."""


def build(cls: type[T], raw: Mapping[str, Any], where: str) -> T:
    """An instance of a settings dataclass, numbers cast to their declared types, defaults filled in.

    Args:
        cls: The dataclass.
        raw: Values by field, as YAML or JSON give them.
        where: What stands before the field's name in messages, such as `recipe`.

    Raises:
        InputError: naming the field, the value and the fix.
    """
    if not isinstance(raw, Mapping):
        raise InputError(f"{where} must be a mapping of settings, but got {shown(raw)}")
    check_keys(raw, [f.name for f in dataclasses.fields(cls)], f"{where}.")  # type: ignore[arg-type]
    raw = dict(raw) | {key: _held(*held, f"{where}.{key}") for key, held in _registered(cls, raw).items()}
    try:
        made: T = adapter(cls).validate_python(raw)  # type: ignore[arg-type]
    except ValidationError as problem:
        raise InputError(explain(problem, where)) from None
    except OverflowError:
        raise InputError(f"{where} holds a number that is too large") from None
    for key, value in raw.items():
        _check_numbers(value, getattr(made, key), f"{where}.{key}")
    return made


def _registered(cls: type[Any], raw: Mapping[str, Any]) -> dict[str, tuple[Registry[Any], Any]]:
    """The fields that hold settings objects of a registry, by the metadata `registry`, with their values in `raw`."""
    marked = [f for f in dataclasses.fields(cls) if "registry" in f.metadata and f.name in raw]
    return {f.name: (f.metadata["registry"], raw[f.name]) for f in marked}


def _held(registry: Registry[Any], raw: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(raw, (list, tuple)):
        raise InputError(f"{where} must be a list, but got {shown(raw)}")
    return tuple(choose(registry, item, where) for item in raw)


def check_keys(raw: Mapping[str, Any], known: Iterable[str], prefix: str = "") -> None:
    """Raises InputError for the first key of `raw` that is not `known`, with the nearest ones."""
    names = list(known)
    for key in raw:
        if key not in names:
            raise InputError(f"{prefix}{key_text(key)} is unknown; {close_names(str(key), names)}")


def key_text(key: Any) -> str:
    """A key as a message shows it: as it is if it could be one, else quoted, so that it stays on its line."""
    return key if isinstance(key, str) and key.isidentifier() else shown(key)


def _check_numbers(raw: Any, made: Any, where: str) -> None:
    """No truth value where a number is meant, and no NaN or infinity anywhere."""
    if isinstance(raw, bool) and not isinstance(made, bool):
        raise InputError(f"{where} must be a number, but got {raw!r}")
    if isinstance(made, float) and not math.isfinite(made):
        raise InputError(f"{where} must be a finite number, but got {made!r}")
    if isinstance(made, (list, tuple)) and isinstance(raw, (list, tuple)):
        for some, other in zip(raw, made, strict=False):
            _check_numbers(some, other, where)


def explain(problem: ValidationError, where: str) -> str:
    """One line for the first thing that is wrong."""
    error = problem.errors()[0]
    field = ".".join([where, *map(str, error["loc"])])
    if error["type"] == "value_error":
        message = str(error["ctx"]["error"])
        return message if message.startswith(f"{where}.") else f"{where}: {message}"
    if error["type"] in ("missing", "missing_argument"):
        return f"{field} is missing"
    hint = list_hint(error["input"]) if error["type"] == "tuple_type" else ""
    return f"{field}: {error['msg']}, but got {shown(error['input'])}{hint}"


def choose(registry: Registry[type[T]], raw: Any, where: str) -> T:
    """A settings object from the registry: `raw` is a name, or a mapping with `name` and settings."""
    if isinstance(raw, str):
        raw = {"name": raw}
    if not isinstance(raw, Mapping) or not isinstance(raw.get("name"), str):
        raise InputError(f"{where} must be a name or a mapping with a `name`, but got {shown(raw)}")
    cls = registry.get(raw["name"])
    return build(cls, {k: v for k, v in raw.items() if k != "name"}, f"{where}.{raw['name']}")


def as_dict(name: str, settings: Any) -> dict[str, Any]:
    """Name and all settings, as JSON-ready values; what identifies the object."""
    held = _registered(type(settings), vars(settings))
    named = {key: [as_dict(reg.name_of(type(item)), item) for item in items] for key, (reg, items) in held.items()}
    return {"name": name, **plain(settings), **named}
