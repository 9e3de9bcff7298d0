"""What a column holds, said once, in the metadata of a dataclass field. Standard library only.

A class of records is decorated by `record` and has one field per column, `name: kind = column(meaning, ...)`;
`columns_of` reads them. Whatever knows about columns asks it: the check of a line, the table, the mirror in MLflow, the
analysis and `docs/records.md`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from types import NoneType
from typing import Any, Literal, TypeVar, dataclass_transform, get_args, get_type_hints

Tracked = Literal["", "parameter", "metric"]
Class = TypeVar("Class")

LARGEST = 1e300
"""What is beyond it no column of numbers holds."""


@dataclass(frozen=True, kw_only=True)
class Column:
    """What a column holds.

    Attributes:
        kind: `str`, `int`, `float` or `bool`.
        may_be_empty: Whether a value may be None.
        meaning: What it says, in words.
        unit: Of numbers; empty where there is none.
        least: The smallest number that it may hold.
        most: The largest number that it may hold.
        json: For a text that is JSON, the type of what it holds: `dict` or `list`.
        tracked: How a trial shows it in MLflow, if it does so directly.
    """

    kind: type
    may_be_empty: bool
    meaning: str
    unit: str = ""
    least: float = -LARGEST
    most: float = LARGEST
    json: type | None = None
    tracked: Tracked = ""


def column(
    meaning: str,
    *,
    unit: str = "",
    least: float = -LARGEST,
    most: float = LARGEST,
    json: type | None = None,
    tracked: Tracked = "",
) -> Any:
    """A field that is a column; `Column` says what the arguments are."""
    about = {"meaning": meaning, "unit": unit, "least": least, "most": most, "json": json, "tracked": tracked}
    return field(metadata=about)


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(column,))
def record(cls: type[Class]) -> type[Class]:
    """Make a class a record: a frozen dataclass, every value of which is given by its name."""
    return dataclass(frozen=True, slots=True, kw_only=True)(cls)


def columns_of(cls: type) -> dict[str, Column]:
    """The columns of a record by name, in the order of its fields; fields without a meaning are none."""
    hints = get_type_hints(cls)
    marked = [f for f in fields(cls) if f.metadata]
    return {f.name: Column(**_kind(hints[f.name]), **f.metadata) for f in marked}


def _kind(hint: Any) -> dict[str, Any]:
    """The type of a column from its annotation: `str` or an enumeration of texts, `| None` where it may be empty."""
    kinds = get_args(hint) or (hint,)
    (kind,) = (kind for kind in kinds if kind is not NoneType)
    return {"kind": str if issubclass(kind, str) else kind, "may_be_empty": NoneType in kinds}
