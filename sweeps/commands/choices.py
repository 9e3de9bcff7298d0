"""What a sweep can be made of: what comes with the package, and what plug-ins add."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sweeps.config.catalogue import Entry, catalogue
from sweeps.config.presets import preset_names, preset_text

KINDS = {"dataset": "data sets", "model": "models", "attack": "attacks", "unlearner": "unlearners"}
"""Kinds of entries that a configuration names, besides metrics, which are always measured."""
ALIASES = {
    **{kind: kind for kind in (*KINDS, "preset", "metric", "plug-in")},
    **{f"{kind}s": kind for kind in (*KINDS, "preset", "metric", "plug-in")},
    "method": "unlearner",
    "methods": "unlearner",
    "plugin": "plug-in",
    "plugins": "plug-in",
}
"""Words for kinds."""


def entries(plugins: Sequence[str] = ()) -> Sequence[Entry]:
    """The entries of the catalogue; with `plugins` those of the registries, once these are loaded."""
    if not plugins:
        return catalogue()
    from sweeps.config.make_catalogue import registered  # loads torch, as plug-ins do
    from sweeps.config.plugins import load_plugins

    load_plugins(list(plugins))
    return registered()


def columns_of(found: Iterable[Entry]) -> dict[str, str]:
    """All columns of metrics, with their meaning."""
    return {column: meaning for entry in found for column, meaning in entry.columns.items()}


def preset_summaries() -> dict[str, str]:
    """The presets, and what each is for."""
    return {name: preset_text(name).partition("\n")[0].removeprefix("# ") for name in preset_names()}


def installed_plugins(plugins: Sequence[str] = ()) -> dict[str, str]:
    """Plug-ins that could be loaded, and what those of `plugins` add."""
    from sweeps.config.plugins import installed, load_plugins

    known = {name: "installed; load it with --plugin" for name in installed()}
    loaded = load_plugins(list(plugins))
    return known | {plugin.source: "adds " + ", ".join(sum(plugin.adds.values(), ())) for plugin in loaded}
