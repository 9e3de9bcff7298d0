"""`unlearn list`: everything that a configuration can name, with one line each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sweeps.commands.arguments import add_plugins
from sweeps.commands.choices import ALIASES, KINDS, columns_of, entries, installed_plugins, preset_summaries
from sweeps.commands.errors import answered
from sweeps.config.catalogue import Entry
from unlearn_core.checks import InputError, close_names
from unlearn_core.host.parser import Parser
from unlearn_core.host.private import private_files

PRESETS, METRICS, PLUGINS = "preset", "metric", "plug-in"
TITLES = {
    PRESETS: "presets",
    **KINDS,
    "unlearner": "unlearners (retrain and retrain_at_budget are references and always run)",
    METRICS: "metrics (columns of records.parquet)",
    PLUGINS: "plug-ins",
}
DESCRIPTION = """List presets, data sets, models, attacks, methods, metrics and plug-ins, with one line each.

Words that name a kind choose it; others must occur in the name or in the line."""


def main(words: Sequence[str] | None = None, prog: str = "unlearn list") -> int:
    """Run the verb; returns the exit code: 0 listed, 2 nothing found or bad input."""
    p = Parser(prog, DESCRIPTION, f"{prog} methods teacher")
    p.add_argument("words", nargs="*", metavar="WORD", help="a kind, such as methods, or text to look for")
    add_plugins(p)
    given = p.parse_args(words)

    @private_files()
    def print_found() -> int:
        print_list(given.plugin, given.words)
        return 0

    return answered(print_found)


def print_list(plugins: Sequence[str] = (), words: Sequence[str] = ()) -> None:
    """Print what the words choose, with what these `plugins` add.

    Raises:
        InputError: if they choose nothing.
    """
    kinds = {ALIASES[word.lower()] for word in words if word.lower() in ALIASES}
    texts = [word.lower() for word in words if word.lower() not in ALIASES]
    sections = sections_of(entries(plugins), plugins)
    chosen = {kind: _matching(lines, texts) for kind, lines in sections.items() if not kinds or kind in kinds}
    if not any(chosen.values()) and not texts:
        print(f"there are no {' or '.join(TITLES[kind] for kind in chosen)}")
    elif not any(chosen.values()):
        names = {name for kind in chosen for name in sections[kind]} | {*ALIASES}
        raise InputError(f"nothing is called {' '.join(texts)!r}; {close_names(' '.join(texts), names)}")
    for kind, lines in chosen.items():
        if lines:
            _print_section(TITLES[kind], lines)


def sections_of(found: Iterable[Entry], plugins: Sequence[str] = ()) -> dict[str, dict[str, str]]:
    """By kind: names and their lines."""
    found = list(found)
    kinds = {kind: {entry.name: entry.summary for entry in found if entry.kind == kind} for kind in KINDS}
    return {PRESETS: preset_summaries(), **kinds, METRICS: columns_of(found), PLUGINS: installed_plugins(plugins)}


def _matching(lines: Mapping[str, str], texts: Sequence[str]) -> dict[str, str]:
    return {name: line for name, line in lines.items() if all(text in f"{name} {line}".lower() for text in texts)}


def _print_section(title: str, lines: Mapping[str, str]) -> None:
    width = max(map(len, lines))
    print(f"\n{title}")
    for name, line in lines.items():
        print(f"  {name:<{width}}  {line}")
