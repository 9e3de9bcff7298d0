"""Makes docs/configuration.md, the reference of all keys of a configuration, from the classes that hold them.

`python -P -m sweeps.config.reference_page` writes the page anew; a test compares it with the classes.
"""

from __future__ import annotations

import argparse
import dataclasses
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sweeps.config.catalogue import Entry, Setting
from sweeps.config.choices import Method
from sweeps.config.make_catalogue import meanings, registered
from sweeps.config.settings import adapter, plain
from sweeps.config.spec import SECTIONS, Sweep
from unlearn_core.space import Choice, Range

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"
HEAD = """\
# Configuration

Every key of a sweep's configuration, generated from the classes that read it: do not edit this page, run
`python -P -m sweeps.config.reference_page`. A key is set in a YAML file (`--config`) or with `--set`, by dotted path:
`--set recipe.lr=0.1`, `--set attacks.gaussian.epsilon=0.5`. Keys that are left out have their defaults. A key that is
unknown, missing or out of range ends the command with one line, before anything starts.
"""
WRITTEN = {
    "dataset": "name, or mapping", "model": "name, or mapping", "attacks": "list of names and mappings",
    "methods": "list of names and mappings", "discovery_rates": "list of numbers and `single`",
    "plugins": "list of texts",
}  # fmt: skip
"""How keys are written that hold other things once they are read."""
TYPES = {"integer": "whole number", "number": "number", "boolean": "`true` or `false`", "string": "text"}
CHAPTERS = {"dataset": "Data sets", "model": "Models", "attack": "Attacks", "unlearner": "Methods"}


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *_sweep(), *_sections(), *_chapters()]).rstrip() + "\n"


def _sweep() -> Iterator[str]:
    yield from ("## The sweep", "", *_table("key type range default meaning", _keys(Sweep)), "")
    yield from ("An item of `methods` that is a mapping has these keys:", "")
    yield from (*_table("key type range default meaning", _keys(Method)), "")


def _sections() -> Iterator[str]:
    for name, cls in SECTIONS.items():
        yield from (f"## `{name}`", "", inspect.getdoc(cls) or "", "")
        yield from (*_table("key type range default meaning", _keys(cls)), "")


def _keys(cls: type[Any]) -> Iterator[Sequence[str]]:
    """A row for each field of a dataclass, in the words of its JSON schema."""
    schemas, known = adapter(cls).json_schema()["properties"], meanings(cls)  # type: ignore[arg-type]
    for f in dataclasses.fields(cls):
        schema = schemas[f.name]
        kind = "mapping" if f.name in SECTIONS else WRITTEN.get(f.name) or _type(schema)
        yield f"`{f.name}`", kind, _range(schema), _default(f), _sentence(known.get(f.name, ""))


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"] if part != {"type": "null"})
    if schema.get("type") == "array":
        return f"list of {_type(schema['items'])}s"
    return TYPES.get(str(schema.get("type")), "mapping")


def _range(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{word}`" for word in schema["enum"])
    if "maximum" in schema:
        return f"{schema['minimum']:g} to {schema['maximum']:g}"
    return "above 0" if "exclusiveMinimum" in schema else "0 or more" if "minimum" in schema else ""


def _default(f: dataclasses.Field[Any]) -> str:
    if f.name in SECTIONS:
        return f"see [{f.name}](#{f.name})"
    if f.default is not dataclasses.MISSING:
        return "not set" if f.default is None else _shown(f.default)
    return "required" if f.default_factory is dataclasses.MISSING else _shown(f.default_factory())


def _shown(value: Any) -> str:
    """A value as YAML would have it."""
    value = plain(value)
    if isinstance(value, list):
        return "`[" + ", ".join(_shown(item).strip("`") for item in value) + "]`"
    return f"`{value:.4g}`" if isinstance(value, float) else f"`{str(value).lower()}`"


def _chapters() -> Iterator[str]:
    for kind, title in CHAPTERS.items():
        yield from (f"## {title}", "")
        for entry in registered():
            if entry.kind == kind:
                yield from (f"### `{entry.name}`", "", entry.summary, "", *_settings(entry))


def _settings(entry: Entry) -> Iterable[str]:
    rows = [_setting(setting) for setting in entry.settings]
    return [*_table("key type searched default meaning", rows), ""] if rows else []


def _setting(setting: Setting) -> Sequence[str]:
    meaning = _sentence(setting.meaning)
    default = "required" if setting.default is None else f"`{setting.default}`"
    return f"`{setting.name}`", f"`{setting.type}`", _searched(setting.searched), default, meaning


def _searched(span: Range | None) -> str:
    if span is None:
        return ""
    if isinstance(span, Choice):
        return ", ".join(f"`{option}`" for option in span.options)
    return f"{span.low:g} to {span.high:g}{' (log)' if span.log else ''}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else ""


def _table(head: str, rows: Iterable[Sequence[str]]) -> Iterator[str]:
    names = head.split()
    yield f"| {' | '.join(names)} |"
    yield f"|{'---|' * len(names)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', 'or') for cell in row)} |"


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # --help writes nothing
    PAGE.write_text(page(), encoding="utf-8")
