"""Plug-ins: attacks, unlearners, metrics, models and data sets of the user's own, from outside the repository.

A plug-in is a Python file, or an entry point of an installed package in the group `unlearning_vs_poisoning.plugins`.
It is imported, and registers what it adds as the project's own modules do. Importing runs its code: nothing is loaded
that the configuration or the command does not name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from sweeps.schema.line_checks import RESERVED
from unlearn_core.checks import InputError, close_names, shown
from unlearn_core.registry import ATTACKS, DATASETS, METRICS, MODELS, UNLEARNERS
from unlearn_core.types import NEEDS

GROUP = "unlearning_vs_poisoning.plugins"
REGISTRIES = {registry.kind: registry for registry in (DATASETS, MODELS, ATTACKS, UNLEARNERS, METRICS)}
PARTS = {
    "dataset": ("name", "load"),
    "model": ("build",),
    "attack": ("primary", "choose_rows", "craft", "probes"),
    "unlearner": ("needs", "anytime", "updates", "search_space"),
}
"""What a class of each kind must have, besides being a dataclass."""


@dataclasses.dataclass(frozen=True)
class Plugin:
    """A plug-in that is loaded.

    Attributes:
        source: Absolute path of the file, or name of the entry point.
        digest: 16 hex digits of its content.
        adds: The names that it registered, by kind (`dataset`, `model`, `attack`, `unlearner`, `metric`).
    """

    source: str
    digest: str
    adds: Mapping[str, tuple[str, ...]]


_loaded: dict[str, Plugin] = {}


def load_plugins(raw: Any) -> tuple[Plugin, ...]:
    """Load the plug-ins of a configuration, each once in a process.

    Args:
        raw: A list of sources (paths are relative to the working directory), or of mappings with `source` and the
            `digest` that it must still have.

    Raises:
        InputError: For one that is missing, broken or changed, or that adds nothing.
    """
    if not isinstance(raw, (list, tuple)):
        raise InputError(f"plugins must be a list of files or entry points, but got {shown(raw)}")
    plugins: dict[str, Plugin] = {}
    for item in raw:
        source, digest = (item.get("source"), item.get("digest")) if isinstance(item, Mapping) else (item, None)
        if not isinstance(source, str) or not source:
            raise InputError(f"plugins must be a list of files or entry points, but one is {shown(item)}")
        plugin = _load(source)
        if digest not in (None, plugin.digest):
            raise InputError(f"plug-in {plugin.source} was changed while its sweep runs; start the sweep again")
        plugins[plugin.source] = plugin
    return tuple(plugins.values())


def digests(plugins: Iterable[Plugin], used: Mapping[str, Iterable[str]]) -> list[str]:
    """Digests of the plug-ins that add any of the `used` names (by kind), sorted."""
    return sorted({p.digest for p in plugins for kind, names in used.items() if set(p.adds.get(kind, ())) & set(names)})


def installed() -> list[str]:
    """Names of the entry points that can be loaded; none of them is."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def _load(source: str) -> Plugin:
    is_file = source.endswith(".py") or os.sep in source
    whole = str(Path(source).expanduser().resolve()) if is_file else source
    entry = None if is_file else _entry_point(source)
    digest = _file_digest(whole) if entry is None else _package_digest(entry)
    if whole in _loaded and _loaded[whole].digest == digest:
        return _loaded[whole]
    if whole in _loaded:
        raise InputError(f"plug-in {whole} was changed after it was loaded; start the command again")
    before = {kind: set(registry.names()) for kind, registry in REGISTRIES.items()}
    try:
        _import_file(whole, digest) if entry is None else entry.load()
    except InputError as problem:  # of a registry: the name is taken
        raise InputError(f"plug-in {source}: {problem}") from None
    except (Exception, SystemExit) as problem:
        raise InputError(f"plug-in {source} cannot be imported: {type(problem).__name__}: {problem}") from problem
    adds = {kind: tuple(sorted(set(r.names()) - before[kind])) for kind, r in REGISTRIES.items()}
    _check(source, adds)
    _loaded[whole] = Plugin(whole, digest, adds)
    return _loaded[whole]


def _entry_point(name: str) -> EntryPoint:
    found = [entry for entry in entry_points(group=GROUP) if entry.name == name]
    if not found:
        known = f"; {close_names(name, installed())}" if installed() else f" (none in the group {GROUP})"
        raise InputError(f"plug-in {name!r} is neither a .py file nor an entry point of an installed package{known}")
    return found[0]


def _file_digest(path: str) -> str:
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()[:16]
    except OSError as problem:
        raise InputError(f"plug-in {path} cannot be read: {problem.strerror}") from None


def _package_digest(entry: EntryPoint) -> str:
    """Of name, version and every source file of the package: an editable installation changes without its version."""
    spec = importlib.util.find_spec(entry.module.partition(".")[0])
    if spec is None or spec.origin is None:
        raise InputError(f"plug-in {entry.name!r}: its package has no module {entry.module!r}; install it again")
    roots = [Path(place) for place in spec.submodule_search_locations or ()]
    files = sorted({p for root in roots for p in root.rglob("*.py")} or {Path(spec.origin)})
    whole = hashlib.sha256(f"{entry.value} {entry.dist and (entry.dist.name, entry.dist.version)}".encode())
    for path in files:
        whole.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:16]


def _import_file(path: str, digest: str) -> None:
    name = f"plugin_{digest}"  # a file of the same name as a module must not hide it
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError("not a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look it up there
    spec.loader.exec_module(module)


def _check(source: str, adds: Mapping[str, Sequence[str]]) -> None:
    if not any(adds.values()):
        raise InputError(
            f"plug-in {source} registers nothing; decorate its class, as with @UNLEARNERS.register('name')"
        )
    for kind, parts in PARTS.items():
        for name in adds[kind]:
            item = REGISTRIES[kind].get(name)
            lacking = [part for part in parts if not hasattr(item, part)]
            if lacking or not dataclasses.is_dataclass(item):
                what = " and ".join(lacking) or "the decorator @dataclass(frozen=True, kw_only=True)"
                raise InputError(f"plug-in {source}: {kind} {name!r} lacks {what}")
    for name in adds["metric"]:
        taken = sorted(RESERVED & set(getattr(REGISTRIES["metric"].get(name), "columns", ())))
        if taken:
            raise InputError(
                f"plug-in {source}: metric {name!r} has a column {taken[0]!r}, which records have; rename it"
            )
    for name in adds["unlearner"]:
        strange = [need for need in UNLEARNERS.get(name).needs if need not in NEEDS]
        if strange:
            raise InputError(f"plug-in {source}: needs of {name!r} must be among {list(NEEDS)}, but has {strange[0]!r}")
