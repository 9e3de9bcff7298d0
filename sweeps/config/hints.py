"""What somebody may have meant whose setting is none: the section of a key, a share for per cent, a list for words."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from unlearn_core.registry import ATTACKS, DATASETS, MODELS, UNLEARNERS, Registry

PLACES_SHOWN = 3
PLAIN = re.compile(r"[\w.+-]{1,80}")
PER_CENT = re.compile(r"(\d+\.?\d*|\.\d+)\s*%")


def list_hint(value: object) -> str:
    """For text that holds several things: how a list is written; else nothing."""
    parts = [part for part in re.split(r"[,;\s]+", value.strip()) if part] if isinstance(value, str) else []
    return f"; write [{', '.join(parts)}]" if 1 < len(parts) < 100 and all(map(PLAIN.fullmatch, parts)) else ""


def share_hint(value: object) -> str:
    """For what must be a share, and is text, or a number from above 1 to 100."""
    found = PER_CENT.fullmatch(value.strip()) if isinstance(value, str) else None
    number = float(found[1]) if found else value
    if isinstance(number, int | float) and (1 < number <= 100 or found):
        return f"; did you mean {number / 100:g}, which is {number:g} %?"
    return list_hint(value)


def place_hint(key: str, raw: Mapping[str, Any], sections: Mapping[str, type]) -> str:
    """For a key that stands outside its section: where it may belong in the sweep `raw`; else nothing."""
    places = list(_places(key, raw, sections))
    near = difflib.get_close_matches(
        key, [name for name in (*sections, *map(str, raw)) if name != key], n=1, cutoff=0.8
    )
    return f"did you mean {' or '.join([*near, *places][:PLACES_SHOWN])}?" if places else ""


def _places(key: str, raw: Mapping[str, Any], sections: Mapping[str, type]) -> Iterator[str]:
    yield from (f"{name}.{key}" for name, section in sections.items() if _has(section, key))
    single: dict[str, Registry[Any]] = {"dataset": DATASETS, "model": MODELS}
    yield from (f"{name}.{key}" for name, registry in single.items() if _is_of(registry, raw.get(name), key))
    lists: tuple[tuple[str, Registry[Any], str], ...] = (("attacks", ATTACKS, ""), ("methods", UNLEARNERS, ".fixed"))
    for name, registry, below in lists:
        items: Any = raw.get(name)
        for item in items if isinstance(items, list) else [items]:
            if _is_of(registry, item, key):
                label = item if isinstance(item, str) else item.get("label", item["name"])
                yield f"{name}.{label}{below}.{key}"


def _is_of(registry: Registry[Any], item: Any, key: str) -> bool:
    """Whether what an item of the sweep names has a setting of that name."""
    name = item.get("name") if isinstance(item, Mapping) else item
    return isinstance(name, str) and name in registry.names() and _has(registry.get(name), key)


def _has(settings: Any, key: str) -> bool:
    return dataclasses.is_dataclass(settings) and key in {field.name for field in dataclasses.fields(settings)}
