"""What a setting may be, declared in its annotation: `lr: Annotated[float, POSITIVE]`.

A settings dataclass calls `check` in its `__post_init__`. JSON schemas that pydantic makes of it state the same rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, get_type_hints

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
    """Check all fields of a dataclass that have a rule; of a tuple each item, and None always passes.

    Args:
        settings: an instance of a dataclass with `Annotated` fields.

    Raises:
        InputError: for the first value that breaks its rule.
    """
    for name, rule in _rules(type(settings)):  # type: ignore[arg-type]
        value = getattr(settings, name)
        for item in value if isinstance(value, tuple) else (value,):
            if item is not None:
                rule.check(name, item)


@cache
def _rules(cls: type[Any]) -> list[tuple[str, Rule]]:
    hints = get_type_hints(cls, include_extras=True).items()
    return [
        (name, rule) for name, hint in hints for rule in getattr(hint, "__metadata__", ()) if isinstance(rule, Rule)
    ]
