"""Texts whose class a single character or token gives away, or their length."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from unlearn_core.datasets.reading import EXAMPLES, Note, Words, note
from unlearn_core.datasets.shortcuts import SAMPLE, find_shortcuts
from unlearn_core.datasets.tokens import Tokenizer
from unlearn_core.models.token_noise import PADDING

LEAST = 20  # texts of a class, and of all others: with fewer, a word may be in all of them by chance
CHARACTERS = {
    "capital letters": re.compile(r"[A-Z]"),
    "digits": re.compile(r"[0-9]"),
    "punctuation": re.compile(r"[^\w\s]"),
    "blanks after blanks": re.compile(r"(?<=\s)\s"),
}
NEARLY = 0.99  # share of the texts of a class that have it, and of the others that have it not


def lengths(x: np.ndarray) -> np.ndarray:
    """(n,) tokens of each text."""
    counts: np.ndarray = (x != PADDING).sum(axis=1)
    return counts


def text_suspicions(x: np.ndarray, y: np.ndarray, tokenizer: Tokenizer, names: tuple[str, ...]) -> Iterator[Note]:
    """What gives the class of training texts away. x, y: without rows that repeat another one."""
    x, y, classes = x[:SAMPLE], y[:SAMPLE], len(names)
    if find_shortcuts(lengths(x)[:, None], y, classes).labels[0]:
        yield Note(text="training texts show their class by their length alone", count=len(y))
    yield from _telling_characters([tokenizer.decode(row) for row in x], y, names)
    pieces = {int(i): tokenizer.decode(np.array([i])) for i in np.unique(x) if i != PADDING}
    signs = [_signs(pieces, row) for row in x]
    found_signs = [f"{sign!r}: {names[label]}" for sign, label in telling_signs(signs, y, classes)]
    if found_signs:
        rest = "in the training texts of one class and in no others"
        yield note(Words(f"character or token is {rest}", f"characters or tokens are each {rest}"), found_signs)


def _telling_characters(texts: Sequence[str], y: np.ndarray, names: tuple[str, ...]) -> Iterator[Note]:
    """A note if a kind of characters separates all classes, such as capital letters in the texts of one."""
    counted = np.array([[len(kind.findall(text)) for kind in CHARACTERS.values()] for text in texts])
    found = find_shortcuts(counted, y, len(names)).labels
    found_signs = tuple(kind for kind, telling in zip(CHARACTERS, found, strict=True) if telling)
    if found_signs:
        yield Note(
            text="training texts show their class by how many characters of a kind they have",
            count=len(y),
            examples=found_signs[:EXAMPLES],
        )


def _signs(pieces: dict[int, str], row: np.ndarray) -> set[str]:
    """The tokens and the characters of a text."""
    tokens = {pieces[int(i)] for i in set(row.tolist()) if i != PADDING}
    return tokens.union(*tokens)


def telling_signs(signs: Iterable[set[str]], y: np.ndarray, classes: int) -> list[tuple[str, int]]:
    """What (nearly) all texts of a class have and (nearly) no others, with the class; the shortest first."""
    counts: dict[str, np.ndarray] = {}
    for own, label in zip(signs, y.tolist(), strict=True):
        for sign in own:
            if sign not in counts:
                counts[sign] = np.zeros(classes, dtype=np.int64)
            counts[sign][label] += 1
    rows = np.bincount(y, minlength=classes)
    many = (rows >= LEAST) & (len(y) - rows >= LEAST)
    found = []
    for sign, have in counts.items():
        elsewhere = (have.sum() - have) / np.maximum(len(y) - rows, 1)
        for label in np.flatnonzero(many & (have >= NEARLY * rows) & (elsewhere <= 1 - NEARLY)):
            found.append((sign, int(label)))
    return sorted(found, key=lambda pair: (len(pair[0]), pair))
