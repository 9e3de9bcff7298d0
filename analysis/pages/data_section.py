"""The data card of `sweep.json` as the report shows it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

CLASSES_SHOWN = 50
THINGS_SHOWN = 20  # files or columns
SPLITS = {"train": "training", "validation": "validation", "test": "test"}
WARNINGS = ("errors", "absent", "overlaps", "contradictions", "suspicions", "duplicates")


class DataSection(NamedTuple):
    """facts: name and text.

    classes: index, name and rows in each set; `splits` names the sets. left_over: classes that are not listed.
    """

    facts: list[tuple[str, str]]
    splits: list[str]
    classes: list[tuple[Any, ...]]
    left_over: int
    warnings: list[str]


def data_section(card: object) -> DataSection | None:
    """None for a folder from before there were cards."""
    if not isinstance(card, dict):
        return None
    splits, names = card.get("splits", []), card.get("classes", [])
    counts = [(f"{SPLITS.get(s['name'], s['name'])} rows", f"{s['rows']:,}, {_range(card, s)}") for s in splits]
    facts = [
        ("data set", f"{card.get('name')} ({card.get('kind')})"),
        *counts,
        ("shape of a row", " × ".join(map(str, card.get("shape", [])))),
    ]
    facts += [(key, _cut(card[key])) for key in ("used", "columns") if card.get(key)]
    facts += [(label, _note(note)) for key, label in _NOTES.items() for note in card.get(key, [])]
    rows = list(zip(*(split["per_class"] for split in splits), strict=True))
    classes = [(i, name, *own) for i, (name, own) in enumerate(zip(names, rows, strict=False))]
    return DataSection(
        facts,
        [SPLITS.get(split["name"], split["name"]) for split in splits],
        classes[:CLASSES_SHOWN],
        max(0, len(classes) - CLASSES_SHOWN),
        [_note(note) for key in WARNINGS for note in card.get(key, [])],
    )


_NOTES = {"left_out": "left out", "coerced": "changed", "facts": "note"}


def _range(card: dict[str, Any], split: dict[str, Any]) -> str:
    what = {"images": "pixels", "texts": "tokens per text"}.get(str(card.get("kind")), "values")
    return f"{what} {split['low']:g} to {split['high']:g}"


def _note(note: object) -> str:
    """A note as a sentence; an error is one already."""
    if not isinstance(note, dict):
        return str(note)
    such = "" if note["count"] == len(note.get("examples", ())) else "such as "
    shown = f" ({such}{', '.join(note['examples'])})" if note.get("examples") else ""
    return f"{note['count']:,} {note['text']}{shown}"


def _cut(things: Iterable[object]) -> str:
    texts = list(map(str, things))
    more = f" and {len(texts) - THINGS_SHOWN} more" if len(texts) > THINGS_SHOWN else ""
    return ", ".join(texts[:THINGS_SHOWN]) + more
