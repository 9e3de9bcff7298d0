"""`--list`: everything that a configuration can name, with one line each."""

from __future__ import annotations

from collections.abc import Sequence

from sweeps.config.plugins import installed, load_plugins
from sweeps.config.presets import PRESETS, preset_names
from unlearn_core.metrics import columns
from unlearn_core.registry import ATTACKS, DATASETS, MODELS, UNLEARNERS


def print_list(plugins: Sequence[str] = ()) -> None:
    """Presets, data sets, models, attacks, unlearners and metrics, with what these `plugins` add."""
    loaded = load_plugins(list(plugins))
    _section("presets", {name: _first_comment(name) for name in preset_names()})
    for title, registry in (
        ("data sets", DATASETS),
        ("models", MODELS),
        ("attacks", ATTACKS),
        ("unlearners (retrain and retrain_at_budget are references and always run)", UNLEARNERS),
    ):
        _section(title, {name: registry.summary(name) for name in registry.names()})
    _section("metrics (columns of records.parquet)", columns())
    known = {name: "installed; load it with --plugin" for name in installed()}
    shown = {plugin.source: "adds " + ", ".join(sum(plugin.adds.values(), ())) for plugin in loaded}
    if known or shown:
        _section("plug-ins", known | shown)


def _section(title: str, lines: dict[str, str]) -> None:
    width = max(map(len, lines))
    print(f"\n{title}")
    for name, line in lines.items():
        print(f"  {name:<{width}}  {line}")


def _first_comment(preset: str) -> str:
    return (PRESETS / f"{preset}.yaml").read_text().split("\n")[0].removeprefix("# ")
