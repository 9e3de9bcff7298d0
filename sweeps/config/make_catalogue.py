"""Makes the entries of the catalogue from the registries.

`python -P -m sweeps.config.make_catalogue` writes the file anew; a test compares it with the registries.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import inspect
import io
import re
import textwrap
import tokenize
from typing import Any

import unlearn_core.attacks
import unlearn_core.datasets
import unlearn_core.metrics
import unlearn_core.models
import unlearn_core.unlearners  # noqa: F401 - these imports fill the registries
from sweeps.config.catalogue import FILE, Entry, Setting, text_of
from sweeps.config.common_settings import COMMON
from unlearn_core.registry import ATTACKS, DATASETS, METRICS, MODELS, UNLEARNERS, Registry
from unlearn_core.types import Primary

REGISTRIES: tuple[Registry[Any], ...] = (DATASETS, MODELS, ATTACKS, UNLEARNERS, METRICS)
SOURCE = re.compile(r"\s*\bSource: ")
FOR_CALLERS = re.compile(r"\n\n(?:Args|Attributes|Raises|Returns|Yields):\n(?:    .*\n?|\n(?=    ))*")
"""Sections of a docstring that say how to call it, which users of a configuration never do."""


def registered() -> list[Entry]:
    """An entry for everything that is registered in this process, that of plug-ins included."""
    return [entry_of(registry, name) for registry in REGISTRIES for name in registry.names()]


def entry_of(registry: Registry[Any], name: str) -> Entry:
    """The entry of one registered item."""
    item = registry.get(name)
    documentation, *source = SOURCE.split(FOR_CALLERS.sub("\n\n", inspect.getdoc(item) or ""), maxsplit=1)
    summary, _, description = documentation.partition("\n")
    return Entry(
        kind=registry.kind,
        name=name,
        summary=summary,
        description=description.strip(),
        source=" ".join(" ".join(source).split()),
        facts=_facts(item),
        settings=_settings(item) if isinstance(item, type) and dataclasses.is_dataclass(item) else (),
        columns=dict(getattr(item, "columns", {})),
    )


def _facts(item: Any) -> dict[str, str]:
    needs, primary = getattr(item, "needs", None), getattr(item, "primary", None)
    facts = {"needs": ", ".join(needs)} if needs else {}
    return facts | ({"measured by": primary.metric} if isinstance(primary, Primary) else {})


def _settings(cls: type[Any]) -> tuple[Setting, ...]:
    known = meanings(cls)
    space = cls.search_space() if hasattr(cls, "search_space") else {}
    return tuple(
        Setting(f.name, _type(f.type), _default(f), known.get(f.name) or COMMON.get(f.name, ""), space.get(f.name))
        for f in dataclasses.fields(cls)
    )


def _type(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _default(f: dataclasses.Field[Any]) -> str | None:
    if f.default is not dataclasses.MISSING:
        return repr(f.default)
    return None if f.default_factory is dataclasses.MISSING else repr(f.default_factory())


def meanings(cls: type[Any]) -> dict[str, str]:
    """The comments behind the fields of a class.

    One that a class declares again without a comment means what it meant in the class that it inherits from.
    """
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if dataclasses.is_dataclass(base):
            found |= {name: comment for name, comment in _comments(base).items() if comment}
    return found


def _comments(cls: type[Any]) -> dict[str, str]:
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except OSError:  # of a class that was typed in, such as a notebook's
        return {}
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}
    (definition,) = ast.parse(source).body
    assert isinstance(definition, ast.ClassDef)
    fields = [node for node in definition.body if isinstance(node, ast.AnnAssign)]
    return {
        node.target.id: comments.get(node.end_lineno or 0, "") for node in fields if isinstance(node.target, ast.Name)
    }


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # --help writes nothing
    FILE.write_text(text_of(registered()), encoding="utf-8")
