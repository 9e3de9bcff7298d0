"""What a setting may be, declared in its annotation: `lr: Annotated[float, POSITIVE]`.

A settings dataclass calls `check` in its `__post_init__`. JSON schemas that pydantic makes of it state the same rules.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from numbers import Integral, Real
from typing import Any, Union, get_args, get_origin, get_type_hints

from unlearn_core import checks


@dataclass(frozen=True, eq=False)
class Rule:
    """A rule for the values of a field.

    Args:
        check: called with the field's name and its value; raises InputError for a value that breaks the rule.
        schema: the same rule in the words of JSON Schema.
    """

    check: Callable[[str, Any], None]
    schema: Mapping[str, Any]

    def __get_pydantic_json_schema__(
        self, core_schema: Any, handler: Callable[[Any], dict[str, Any]]
    ) -> dict[str, Any]:
        return {**handler(core_schema), **self.schema}


def within(low: float, high: float) -> Rule:
    """The rule that numbers lie in [low, high]."""
    return Rule(lambda field, value: checks.in_range(field, value, low, high), {"minimum": low, "maximum": high})


def one_of(*words: str) -> Rule:
    """The rule that a text is one of these words."""
    return Rule(lambda field, value: checks.one_of(field, value, words), {"enum": list(words)})


POSITIVE = Rule(lambda field, value: checks.positive(**{field: value}), {"exclusiveMinimum": 0})
NOT_NEGATIVE = Rule(lambda field, value: checks.not_negative(**{field: value}), {"minimum": 0})


def check(settings: Any) -> None:
    """Check the kinds of all fields of a dataclass, then those that have a rule; there None always passes.

    Args:
        settings: an instance of a dataclass with `Annotated` fields.

    Raises:
        InputError: for the first value that breaks its rule.
    """
    check_kinds(settings)
    for name, rule in _rules(type(settings)):  # type: ignore[arg-type]
        value = getattr(settings, name)
        for item in value if isinstance(value, tuple) else (value,):
            if item is not None:
                rule.check(name, item)


KINDS: Mapping[type, tuple[type, str]] = {
    int: (Integral, "a whole number"),
    float: (Real, "a number"),
    bool: (bool, "True or False"),
    str: (str, "a text"),
    types.NoneType: (types.NoneType, "None"),
}
"""What passes for the annotation, and its name in messages."""


def check_kinds(settings: Any) -> None:
    """Check that numbers are numbers, whole where the annotation is `int`, and likewise truth values and texts.

    Args:
        settings: an instance of a dataclass. Fields of other kinds pass. Of a tuple each item is checked.

    Raises:
        InputError: for the first value of another kind.
    """
    for name, (kinds, many) in _kinds(type(settings)).items():  # type: ignore[arg-type]
        value = getattr(settings, name)
        if many and not isinstance(value, tuple | list):
            raise checks.InputError(f"{name} must be a tuple, but got {checks.shown(value)}")
        for item in value if many else (value,):
            if not any(_is_of(item, kind) for kind in kinds):
                wanted = " or ".join(KINDS[kind][1] for kind in kinds)
                raise checks.InputError(f"{name} must be {wanted}, but got {checks.shown(item)}")


def _is_of(value: object, kind: type) -> bool:
    """True and False are no numbers, though Python counts them among the whole ones."""
    return isinstance(value, KINDS[kind][0]) and (kind is bool or not isinstance(value, bool))


@cache
def _kinds(cls: type[Any]) -> dict[str, tuple[tuple[type, ...], bool]]:
    """The kinds that each field, or each item of a tuple, may have; only of fields of which all kinds are known."""
    hints = get_type_hints(cls)
    found = {field.name: _alternatives(hints[field.name]) for field in fields(cls)}
    return {name: (kinds, many) for name, (kinds, many) in found.items() if all(kind in KINDS for kind in kinds)}


def _alternatives(hint: Any) -> tuple[tuple[Any, ...], bool]:
    """The types of a union, or those of a tuple's items; and whether it is a tuple."""
    if get_origin(hint) is tuple:
        items = [kind for part in get_args(hint) if part is not Ellipsis for kind in _alternatives(part)[0]]
        return tuple(dict.fromkeys(items)), True
    return (get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)), False


@cache
def _rules(cls: type[Any]) -> list[tuple[str, Rule]]:
    hints = get_type_hints(cls, include_extras=True).items()
    return [
        (name, rule) for name, hint in hints for rule in getattr(hint, "__metadata__", ()) if isinstance(rule, Rule)
    ]
