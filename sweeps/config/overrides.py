"""`--set key=value`: changes to a configuration, by dotted path."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.config.strict_yaml import parse
from unlearn_core.checks import InputError, close_names, shown

SCIENTIFIC = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+")


Changes = Sequence[tuple[str, Any]]
"""Dotted paths and their new values."""


def apply(raw: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A copy of `raw` with each `a.b.c=value` applied, values read as YAML."""
    return changed(raw, parsed(assignments))


def parsed(assignments: Sequence[str]) -> Changes:
    """The changes that texts such as `a.b.c=value` ask for."""
    return [_parsed(assignment) for assignment in assignments]


def changed(raw: Mapping[str, Any], changes: Changes) -> dict[str, Any]:
    """A copy of `raw` with the changes made.

    A step into a list is an index, or the `label` or `name` of one of its items: `attacks.gaussian.epsilon`.
    """
    copied = copy.deepcopy(dict(raw))
    for path, value in changes:
        _put(copied, path.split("."), value, path)
    return copied


def _parsed(assignment: str) -> tuple[str, Any]:
    path, equals, text = assignment.partition("=")
    if not equals or not path:
        raise InputError(f"--set needs key=value, but got {shown(assignment)}")
    return path, _value(text, assignment)


def _value(text: str, assignment: str) -> Any:
    value = parse(text, f"--set value is not readable (YAML) in {shown(assignment)}")
    if isinstance(value, str) and SCIENTIFIC.fullmatch(value):  # YAML reads 1e-3 as text
        return float(value)
    return value


def _put(container: Any, steps: list[str], value: Any, path: str) -> None:
    step: str | int = steps[0]
    rest = steps[1:]
    if isinstance(container, list):
        step, rest = _item(container, steps, path)
    elif isinstance(container, dict):
        container.setdefault(step, None)
    else:
        raise InputError(f"--set {path}: {step!r} has no parts that could be set")
    if not rest:
        container[step] = value
        return
    if isinstance(container[step], str):  # `model: mlp` becomes a mapping when one of its settings is set
        container[step] = {"name": container[step]}
    if container[step] is None:
        container[step] = {}
    _put(container[step], rest, value, path)


def _item(items: list[Any], steps: list[str], path: str) -> tuple[int, list[str]]:
    """Index of the item that the path means, and the steps after it. A label may hold dots: `gaussian-1.5`."""
    labels = [str(i.get("label", i.get("name"))) if isinstance(i, dict) else str(i) for i in items]
    for end in range(len(steps), 0, -1):
        label = ".".join(steps[:end])
        if label in labels:
            return labels.index(label), steps[end:]
    if steps[0].isdecimal() and len(steps[0]) < 9 and int(steps[0]) < len(items):
        return int(steps[0]), steps[1:]
    raise InputError(f"--set {path}: {steps[0]!r} is not in the list; {close_names(steps[0], labels)}")
