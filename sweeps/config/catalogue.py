"""What a sweep can be made of, read from a file that is generated from the registries: no torch is loaded for it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from unlearn_core.space import Choice, Float, Int, Range

FILE = Path(__file__).with_name("catalogue.json")
RANGES: Mapping[str, Callable[..., Range]] = {"float": Float, "int": Int, "choice": Choice}


@dataclass(frozen=True)
class Setting:
    """A setting of an entry.

    Args:
        name: Its key in a configuration.
        type: As it is annotated.
        default: As Python writes it; None where it must be given.
        meaning: One line; empty where the name says it all.
        searched: What a search draws it from; None if it is not searched.
    """

    name: str
    type: str
    default: str | None
    meaning: str
    searched: Range | None = None


@dataclass(frozen=True)
class Entry:
    """Something that a configuration can name.

    Args:
        kind: Kind of its registry: dataset, model, attack, unlearner or metric.
        name: What a configuration calls it.
        summary: One line.
        description: The rest of its documentation.
        source: Where it was published, and how this deviates from it.
        facts: Short facts by name, such as what it needs.
        settings: In the order in which they are declared.
        columns: Of a metric: the columns of records.parquet that it fills, with their meaning.
    """

    kind: str
    name: str
    summary: str
    description: str = ""
    source: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    settings: tuple[Setting, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def space(self) -> dict[str, Range]:
        """Ranges of the settings that are searched."""
        return {setting.name: setting.searched for setting in self.settings if setting.searched is not None}


@cache
def catalogue() -> tuple[Entry, ...]:
    """Everything that comes with the package, by kind and name."""
    return tuple(_entry(raw) for raw in json.loads(FILE.read_text(encoding="utf-8")))


def text_of(entries: Iterable[Entry]) -> str:
    """The content of the file for these entries."""
    whole = [_raw(entry) for entry in entries]
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _raw(entry: Entry) -> dict[str, Any]:
    settings = [dataclasses.asdict(setting) | {"searched": _raw_range(setting.searched)} for setting in entry.settings]
    return dataclasses.asdict(entry) | {"settings": settings}


def _entry(raw: Mapping[str, Any]) -> Entry:
    settings = tuple(Setting(**(item | {"searched": _range(item["searched"])})) for item in raw["settings"])
    return Entry(**(dict(raw) | {"settings": settings}))


def _raw_range(span: Range | None) -> dict[str, Any] | None:
    return None if span is None else {"kind": type(span).__name__.lower(), **dataclasses.asdict(span)}


def _range(raw: Mapping[str, Any] | None) -> Range | None:
    if raw is None:
        return None
    parts = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items() if key != "kind"}
    return RANGES[raw["kind"]](**parts)
