"""`--set key=value`: changes to a configuration, by dotted path."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from unlearn_core.checks import InputError, close_names


def apply(raw: Mapping[str, Any], assignments: Sequence[str]) -> dict[str, Any]:
    """A copy of `raw` with each `a.b.c=value` applied, values read as YAML.

    A step into a list is an index, or the `label` or `name` of one of its items: `attacks.gaussian.epsilon=2`.
    """
    changed = copy.deepcopy(dict(raw))
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise InputError(f"--set needs key=value, but got {assignment!r}")
        _put(changed, path.split("."), _value(text, assignment), path)
    return changed


def _value(text: str, assignment: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"--set value is not readable (YAML) in {assignment!r}") from None
    try:  # YAML reads 1e-3 as text
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _put(container: Any, steps: list[str], value: Any, path: str) -> None:
    step, rest = steps[0], steps[1:]
    if isinstance(container, list):
        index = _index(container, step, path)
        if rest and isinstance(container[index], str):
            container[index] = {"name": container[index]}
        if rest:
            _put(container[index], rest, value, path)
        else:
            container[index] = value
    elif isinstance(container, dict):
        if not rest:
            container[step] = value
            return
        if isinstance(container.get(step), str):  # `model: mlp` becomes a mapping when one of its settings is set
            container[step] = {"name": container[step]}
        _put(container.setdefault(step, {}), rest, value, path)
    else:
        raise InputError(f"--set {path}: {step!r} has no parts that could be set")


def _index(items: list[Any], step: str, path: str) -> int:
    labels = [str(i.get("label", i.get("name"))) if isinstance(i, dict) else str(i) for i in items]
    if step in labels:
        return labels.index(step)
    if step.isdigit() and int(step) < len(items):
        return int(step)
    raise InputError(f"--set {path}: {step!r} is not in the list; {close_names(step, labels)}")
