"""`unlearn describe`: what something is that a configuration can name, with its settings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from sweeps.commands.arguments import add_plugins
from sweeps.commands.choices import ALIASES, columns_of, entries
from sweeps.commands.errors import answered
from sweeps.config.catalogue import Entry, Setting
from sweeps.config.presets import preset_names, preset_text
from unlearn_core.checks import InputError, close_names
from unlearn_core.host.parser import Parser
from unlearn_core.host.private import private_files
from unlearn_core.space import in_words

DESCRIPTION = """Show what an attack, method, metric, model, data set or preset is, with its settings.

Every setting has a line: its type, its default, what a search draws it from, and what it means."""
WIDEST = 24  # of the columns of a table, in characters; longer values push the rest of their line aside


def main(words: Sequence[str] | None = None, prog: str = "unlearn describe") -> int:
    """Run the verb; returns the exit code: 0 shown, 2 unknown or bad input."""
    p = Parser(prog, DESCRIPTION, f"{prog} scrub")
    p.add_argument("words", nargs="+", metavar="NAME", help="a name; a kind before it chooses among equal names")
    add_plugins(p)
    given = p.parse_args(words)

    @private_files()
    def show() -> int:
        print("\n\n".join(described(given.words, given.plugin)))
        return 0

    return answered(show)


def described(words: Sequence[str], plugins: Sequence[str] = ()) -> list[str]:
    """What `words` name, as text; several things may have the same name.

    Args:
        words: Names; kinds among them choose among equal names.
        plugins: Plug-ins to load first.

    Raises:
        InputError: if nothing is called that.
    """
    kinds, names = {ALIASES[word] for word in words if word in ALIASES}, [w for w in words if w not in ALIASES]
    if not names:
        raise InputError(f"{words[-1]!r} is a kind and no name; give a name behind it, or list them with `list`")
    known = [entry for entry in entries(plugins) if not kinds or entry.kind in kinds]
    presets = [] if kinds and "preset" not in kinds else preset_names()
    return [text for name in names for text in _found(name, known, presets)]


def _found(name: str, known: Sequence[Entry], presets: Sequence[str]) -> list[str]:
    found = [_described(entry) for entry in known if name in (entry.name, *entry.columns)]
    found = [_preset(name), *found] if name in presets else found
    if not found:
        names = {entry.name for entry in known} | {*presets, *ALIASES} | columns_of(known).keys()
        raise InputError(f"nothing is called {name!r}; {close_names(name, names)}")
    return found


def _preset(name: str) -> str:
    return f"preset {name}\n\n{preset_text(name).rstrip()}"


def _described(entry: Entry) -> str:
    facts = {**entry.facts, "source": entry.source}
    width = max(map(len, facts))
    parts = [
        f"{entry.kind} {entry.name}\n{entry.summary}",
        entry.description,
        "\n".join(f"{name:<{width}}  {fact}" for name, fact in facts.items() if fact),
        _settings(entry.settings),
        _columns(entry.columns),
    ]
    return "\n\n".join(filter(None, parts))


def _settings(settings: Sequence[Setting]) -> str:
    if not settings:
        return ""
    head = ("setting", "type", "default", "searched", "meaning")
    rows = [
        (s.name, s.type, s.default or "must be given", in_words(s.searched) if s.searched else "-", s.meaning)
        for s in settings
    ]
    return "\n".join(aligned([head, *rows]))


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    widths = [min(WIDEST, max(map(len, column))) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{text:<{width}}" for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _columns(columns: Mapping[str, str]) -> str:
    lines: Iterable[str] = (f"  {name}: {meaning}" for name, meaning in columns.items())
    return "\n".join(["columns of records.parquet", *lines]) if columns else ""
