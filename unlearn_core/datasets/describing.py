"""From what a source gave and what is used of it to its data card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from unlearn_core.datasets.card import DataCard, SplitFacts
from unlearn_core.datasets.equal_rows import EqualRows
from unlearn_core.datasets.image_signs import image_suspicions
from unlearn_core.datasets.parts import SPLITS, Named, Part
from unlearn_core.datasets.raw import Raw
from unlearn_core.datasets.reading import Note, Words, note
from unlearn_core.datasets.scale import Scale, image_scale, table_scale
from unlearn_core.datasets.table_signs import constant_columns, table_suspicions
from unlearn_core.datasets.text_signs import lengths, text_suspicions

SAME = 3  # rows of a class; with fewer, it is no news that all are equal


def describe(name: str, raw: Raw, parts: Mapping[str, Part]) -> DataCard:
    """The card of the rows in use. parts: `train`, `validation` and `test`, with inputs as they are used."""
    named, reading, train = Named(raw.reading), raw.reading, parts["train"]
    equal = EqualRows.of(parts, named)
    scale = _scale(raw.kind, train.x, np.concatenate([parts["validation"].x, parts["test"].x]), named)
    return DataCard(
        name=name,
        kind=raw.kind,
        classes=named.classes(raw.classes),
        shape=train.x.shape[1:],
        splits=tuple(_split_facts(raw, split, part) for split, part in parts.items()),
        used=reading.used,
        columns=reading.columns,
        left_out=reading.left_out,
        coerced=reading.coerced,
        facts=(*_unused(raw, parts), *(constant_columns(train.x, named) if raw.kind == "numbers" else ())),
        duplicates=equal.duplicates(),
        absent=tuple(_absent(parts, raw.classes, named)),
        overlaps=equal.overlaps(),
        contradictions=equal.contradictions(),
        suspicions=(
            *reading.warnings,
            *_same_class(equal, raw.classes),
            *_signs(raw, parts, equal),
            *scale.warnings,
        ),
        errors=(*_meaningless(raw.kind, equal), *scale.errors),
    )


def _split_facts(raw: Raw, split: str, part: Part) -> SplitFacts:
    values = lengths(part.x) if raw.kind == "texts" else part.x
    return SplitFacts(
        name=split,
        rows=len(part.y),
        per_class=tuple(np.bincount(part.y, minlength=raw.classes).tolist()),
        low=values.min().item(),
        high=values.max().item(),
    )


def _unused(raw: Raw, parts: Mapping[str, Part]) -> Iterator[Note]:
    """Rows that were read, and are not used because only some were asked for."""
    used = {split: len(part.y) for split, part in parts.items()}
    for what, setting, there, taken in (
        ("training", "train_rows", len(raw.y_train), used["train"]),
        ("held-out", "held_out_rows", len(raw.y_test), used["validation"] + used["test"]),
    ):
        words = Words(f"{what} row is", f"{what} rows are")
        if there > taken:
            text = f"{words.of(there - taken)} not used: rows.{setting} asks for fewer"
            yield Note(text=text, count=there - taken)


def _absent(parts: Mapping[str, Part], classes: int, named: Named) -> Iterator[Note]:
    names = named.classes(classes)
    for split in ("validation", "test"):
        absent = np.flatnonzero(np.bincount(parts[split].y, minlength=classes) == 0)
        if len(absent):
            none = f"no {SPLITS[split]} row"
            yield note(Words(f"class has {none}", f"classes have {none}"), [names[label] for label in absent])


def _same_class(equal: EqualRows, classes: int) -> Iterator[Note]:
    """Classes whose training rows are all equal."""
    y, keys = equal.parts["train"].y, equal.keys["train"]
    kinds = np.unique(np.stack([y.astype(np.uint64), keys]), axis=1)[0].astype(np.int64)
    same = np.flatnonzero((np.bincount(kinds, minlength=classes) == 1) & (np.bincount(y, minlength=classes) >= SAME))
    if len(same):
        names = equal.named.classes(classes)
        rest = "the same input in all training rows"
        yield note(Words(f"class has {rest}", f"classes have {rest}"), [names[label] for label in same])


def _signs(raw: Raw, parts: Mapping[str, Part], equal: EqualRows) -> Iterator[Note]:
    train, rows = parts["train"], equal.distinct("train")
    if raw.kind == "images":
        return image_suspicions(parts, rows, raw.classes, equal.named)
    if raw.tokenizer is not None:
        return text_suspicions(train.x[rows], train.y[rows], raw.tokenizer, equal.named.classes(raw.classes))
    return table_suspicions(train.x[rows], train.y[rows], raw.classes, equal.named)


def _scale(kind: str, train: np.ndarray, held_out: np.ndarray, named: Named) -> Scale:
    if kind == "images":
        return image_scale(train, held_out)
    return table_scale(train, held_out, named) if kind == "numbers" else Scale()


def _meaningless(kind: str, equal: EqualRows) -> Iterator[str]:
    """Why no result would mean anything: rows that should differ are equal."""
    rows = {split: len(part.y) for split, part in equal.parts.items()}
    kinds = {split: len(equal.distinct(split)) for split in equal.parts}
    check = "check the files, and `length`, where texts are cut off" if kind == "texts" else "check the files"
    if kinds["train"] == 1:
        yield f"all {rows['train']} training rows have the same input, so there is nothing to learn; {check}"
        return
    for split in ("validation", "test"):
        if kinds[split] == 1 and rows[split] > 1:
            yield f"all {rows[split]} {SPLITS[split]} rows have the same input; {check}"
    # A table of few different rows has all of them everywhere, and can still be learnt from.
    if kind != "images" and kinds["train"] <= rows["train"] / 2:
        return
    known = [s for s in ("validation", "test") if len(equal.shared(s, "train")) == rows[s]]
    if known:
        which = " and ".join(f"all {rows[split]} {SPLITS[split]} rows" for split in known)
        yield f"{which} are training rows, too (such as {equal.overlaps()[0].examples[0]}); hold other rows out"
