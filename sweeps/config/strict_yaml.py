"""YAML that means what it says: whatever can be misread is refused in one line with its place, before it costs much."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from unlearn_core.checks import InputError, shown
from unlearn_core.host.files import read_text, regular_file

MOST_BYTES = 200_000
MOST_NODES = 20_000  # values, lists and mappings, with those that aliases stand for
MOST_DEPTH = 30
MOST_DIGITS = 1000
TOO_LARGE = f": is too large; a configuration may have {MOST_BYTES:,} bytes"
PREFIX = "tag:yaml.org,2002:"
SCALARS = {PREFIX + kind for kind in ("str", "int", "float", "bool", "null")}
COLLECTIONS = {PREFIX + "map", PREFIX + "seq"}
MERGE = PREFIX + "merge"
OCTAL = re.compile(r"[-+]?0[0-7_]+")
PLAIN_WORDS = (
    (r"found character '\\t'", "a tab stands where blanks must; indent with blanks"),
    (r"mapping values are not allowed", "a colon too many in this line, or the lines do not stand at the same column"),
    (r"expected <block end>", "the indentation does not fit that of the lines above"),
    (r"could not find expected ':'", "a colon is missing after the word before"),
    (r"expected ',' or '([\]}])'", r"a comma is missing, or the closing \1"),
    (r"but found another document", "a second document begins; a configuration has one"),
    (r"found undefined alias '(.*)'", r"no anchor &\1 comes before the alias *\1"),
    (r"found unexpected (?:end of stream|document separator)", "a quote that was opened is not closed"),
    (r"found character '(.*)' that cannot start any token", r"no value can begin with \1; write it in quotes"),
    (r"expected the node content", "a value is missing"),
)


class _TrapError(Exception):
    """What YAML allows and a configuration must not have, and where it stands."""

    def __init__(self, text: str, mark: Any) -> None:
        super().__init__(text)
        self.mark = mark


def read_mapping(path: Path) -> dict[str, Any]:
    """A configuration file; InputError names file, line and column of what is no mapping of settings."""
    where = f"configuration {path}"
    try:
        large = regular_file(path).stat().st_size > MOST_BYTES
        text = "" if large else read_text(path)
    except InputError as problem:
        raise InputError(f"{where} cannot be read: {problem}") from None
    if large:
        raise InputError(f"{where}{TOO_LARGE}")
    content = parse(text, where)
    if not isinstance(content, dict):
        kind = {type(None): "nothing", list: "a list"}.get(type(content), "a single value")
        raise InputError(f"{where} must be a mapping of settings, but holds {kind}")
    return content


def parse(text: str, where: str) -> Any:
    """The value that `text` stands for.

    Refused beside broken YAML: a key that comes twice, words and numbers that mean something else than they seem (`no`,
    `010`, `1:30`, dates), tags, and what is too large or too deep, with all that its aliases stand for.

    Args:
        text: YAML.
        where: Begins the message of an error, before line and column.

    Raises:
        InputError: For all that is refused.
    """
    if len(text) > MOST_BYTES:
        raise InputError(f"{where}{TOO_LARGE}")
    loader = None
    try:
        _check_size(text)
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check_node(node, set())
        return loader.construct_document(node)
    except _TrapError as trap:
        raise InputError(f"{where}{_place(trap.mark)}: {trap}") from None
    except yaml.MarkedYAMLError as problem:
        raise InputError(f"{where}{_place(problem.problem_mark)}: is not YAML, {_plainly(problem)}") from None
    except yaml.reader.ReaderError as problem:
        line = text.count("\n", 0, problem.position) + 1
        raise InputError(
            f"{where}, line {line}: is not YAML, character {problem.character:#x} is not allowed"
        ) from None
    except ValueError as problem:  # of a number or a text that YAML's own rules let pass
        raise InputError(f"{where}: is not YAML, {str(problem).splitlines()[0]}") from None
    finally:
        if loader is not None:
            loader.dispose()


def _check_size(text: str) -> None:
    """Counts what the text stands for, aliases with all that they repeat, without building any of it."""
    sizes: dict[str, int] = {}  # nodes by anchor
    begun: list[tuple[str | None, int]] = []  # lists and mappings not ended yet: anchor, nodes before it
    count = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in [anchor for anchor, _ in begun]:
                raise _TrapError(f"the alias *{event.anchor} stands inside of what it names", event.start_mark)
            count += sizes.get(str(event.anchor), 1)
        elif isinstance(event, yaml.CollectionStartEvent):
            begun.append((event.anchor, count))
            count += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = begun.pop()
            sizes |= {anchor: count - before} if anchor else {}
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            sizes |= {event.anchor: 1} if event.anchor else {}
        if count > MOST_NODES:
            raise _TrapError(f"more than {MOST_NODES:,} values, with those that aliases repeat", event.start_mark)
        if len(begun) > MOST_DEPTH:
            raise _TrapError(f"lists or mappings in each other, more than {MOST_DEPTH} deep", event.start_mark)


def _check_node(node: yaml.Node, seen: set[int]) -> None:
    """Raises for the first trap in a node or below; what an alias repeats is looked at once."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if node.tag not in (SCALARS if isinstance(node, yaml.ScalarNode) else COLLECTIONS):
        odd = {PREFIX + "timestamp": f"{node.value} is a date in YAML", PREFIX + "merge": "<< must be a key"}
        raise _TrapError(
            f"{odd.get(node.tag, f'the tag {node.tag} is not allowed')}; write text in quotes", node.start_mark
        )
    if isinstance(node, yaml.ScalarNode):
        _check_scalar(node)
    for child in _children(node):
        _check_node(child, seen)


def _children(node: yaml.Node) -> Iterator[yaml.Node]:
    if isinstance(node, yaml.SequenceNode):
        yield from node.value
    elif isinstance(node, yaml.MappingNode):
        _check_keys(node)
        for key, value in node.value:
            if key.tag != MERGE:
                yield key
            yield value


def _check_keys(node: yaml.MappingNode) -> None:
    lines: dict[tuple[str, str], int] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode):
            raise _TrapError("a key must be a word, not a list or a mapping", key.start_mark)
        if (key.tag, key.value) in lines:
            first = lines[key.tag, key.value]
            raise _TrapError(
                f"the key {shown(key.value, 40)} comes twice, first in line {first}; keep one", key.start_mark
            )
        lines[key.tag, key.value] = key.start_mark.line + 1


def _check_scalar(node: yaml.ScalarNode) -> None:
    kind, value = node.tag.removeprefix(PREFIX), node.value
    meant = ""
    if kind == "bool" and value.lower() not in ("true", "false"):
        meant = "true" if value.lower() in ("yes", "on") else "false"
    elif kind == "int" and OCTAL.fullmatch(value):
        meant = "an octal number"
    elif kind in ("int", "float") and ":" in value:
        meant = "a number to the base 60"
    elif kind == "int" and len(value) > MOST_DIGITS:
        raise _TrapError(f"a number of {len(value):,} digits", node.start_mark)
    if meant:
        text = f'write "{value}" in quotes if it is text'
        rest = f", or {meant}" if kind == "bool" else ", or the number in plain decimals"
        raise _TrapError(f"{value} means {meant} in YAML; {text}{rest}", node.start_mark)


def _place(mark: Any) -> str:
    return f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""


def _plainly(problem: yaml.MarkedYAMLError) -> str:
    """What is wrong in plain words, and where the list or text began that is broken."""
    text = str(problem.problem)
    for pattern, words in PLAIN_WORDS:
        matched = re.match(pattern, text)
        if matched:
            text = matched.expand(words)
            break
    begun, found = problem.context_mark, problem.problem_mark
    if begun is None or found is None or begun.line == found.line or "document" in text:
        return text
    return f"{text} (of what begins in line {begun.line + 1})"
