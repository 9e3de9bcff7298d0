"""From the labels of a table to classes: which are missing, which are the same, and in which order they come."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np

from unlearn_core.checks import InputError, shown
from unlearn_core.datasets.reading import Note, Words, note
from unlearn_core.datasets.row_names import RowNames, present, rows_note

MOST_CLASSES = 1000
MISSING = frozenset({"", "nan", "-nan", "null", "na", "n/a", "<na>", "#n/a", "#na", "none", "nil", "nat", "?"})
WORD = "none"  # written so it is often a class ("none", "mild", "severe"); as None and NONE it is Python's and SQL's
UNLABELLED = Words("row without a label", "rows without a label")
REWRITTEN = Words("label written in another way", "labels written in another way")
WHOLE = re.compile(r"-?[1-9][0-9]{0,99}|0")
NUMBER = re.compile(r"[+-]?(?:(?:0|[1-9][0-9]{0,99})(?:\.[0-9]{0,99})?|\.[0-9]{1,99})(?:[eE][+-]?[0-9]{1,2})?")
LOOSE = re.compile(r"[+-]?[0-9]{1,99}(?:\.[0-9]{0,99})?")
INFINITE = re.compile(r"[+-]?inf(?:inity)?", re.IGNORECASE)
OFTEN = {WORD, *"unknown unlabeled unlabelled undefined unspecified missing - -- . \\n n.a. ??".split()}
BESIDE = Words(
    "class that is a word, beside classes that are numbers", "classes that are words, beside classes that are numbers"
)
BY_CASE = Words("", "classes that differ by upper and lower case alone")  # never one
AS_NUMBERS = Words("", "classes that are equal as numbers")
OFTEN_MISSING = Words(
    "class whose name often stands for a missing label", "classes whose names often stand for a missing label"
)


@dataclass(frozen=True, kw_only=True)
class Classes:
    """Labels as classes.

    Attributes:
        indices: (k,) int64 of the rows that have a label.
        kept: (n,) whether a row has one.
        names: Of the classes, in the order of their indices.
    """

    indices: np.ndarray
    kept: np.ndarray
    names: tuple[str, ...]
    left_out: tuple[Note, ...]
    coerced: tuple[Note, ...]
    warnings: tuple[Note, ...]


def classes_of(values: np.ndarray, names: RowNames, where: str) -> Classes:
    """Classes of the labels (n,): numbers, truth values, or text with None where there is none.

    Classes count up in the order of the numbers if all labels are whole numbers, else in the sorted order of the words.
    A label with zeros in front, such as 007, is a word.

    Raises:
        InputError: If there are no two classes, or too many.
    """
    distinct, codes = _factorised(values)
    written = [_written(value, where) for value in distinct]
    words = [unicodedata.normalize("NFC", text.strip()) for text in written]
    missing = np.array([is_missing(word) for word in words])[codes]
    _check_count({word for word in words if not is_missing(word)}, where, int(missing.sum()))
    labels = _plain_numbers([word for word in words if not is_missing(word)], where)
    final = {word: labels.get(word, word) for word in words}
    classes = _ordered({final[word] for word in words if not is_missing(word)})
    _check_count(set(classes), where, int(missing.sum()))
    place = {label: index for index, label in enumerate(classes)}
    indices = np.array([place.get(final[word], -1) for word in words], dtype=np.int64)[codes]
    changed = np.array([final[word] != text for word, text in zip(words, written, strict=True)])[codes] & ~missing

    def shown_at(rows: np.ndarray, as_class: bool) -> Iterable[str]:
        for row in rows:
            text = repr(written[codes[row]])
            yield f"{text} as {classes[indices[row]]} in {names[row]}" if as_class else f"{text} in {names[row]}"

    gone, coerced = np.flatnonzero(missing), np.flatnonzero(changed)
    return Classes(
        indices=indices[~missing],
        kept=~missing,
        names=tuple(classes),
        left_out=present(rows_note(UNLABELLED, gone, shown_at(gone, False), left_out=True)),
        coerced=present(rows_note(REWRITTEN, coerced, shown_at(coerced, True))),
        warnings=_doubts(classes),
    )


def is_missing(word: str) -> bool:
    """Whether a label stands for a missing one; the word `none`, written so, is a class."""
    return word.lower() in MISSING and word != WORD


def _factorised(values: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """Distinct values, and (n,) which of them each is."""
    if values.dtype.kind != "O":
        distinct, codes = np.unique(values, return_inverse=True)
        return list(distinct), codes
    known: dict[Any, int] = {}
    codes = np.array([known.setdefault((type(v), v) if _hashes(v) else str(v), len(known)) for v in values])
    return [key[1] if isinstance(key, tuple) else key for key in known], codes


def _hashes(value: Any) -> bool:
    return value is None or isinstance(value, (str, bytes, int, float))


def _written(value: Any, where: str) -> str:
    """A label as text, numbers of a binary format in their plain form."""
    if value is None:
        return ""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise InputError(f"{where} has the label {shown(value)}, which is no UTF-8 text") from None
    if isinstance(value, (float, np.floating)) and not np.isnan(value):
        if not np.isfinite(value) or value != np.rint(value):
            raise InputError(f"{where} has the label {value}; labels must be whole numbers or words")
        return str(int(value))
    return str(value)


def _plain_numbers(words: list[str], where: str) -> Mapping[str, str]:
    """The plain form of each word if all are numbers; nothing if some are words, such as 007."""
    infinite = [word for word in words if INFINITE.fullmatch(word)]
    if infinite and any(NUMBER.fullmatch(word) for word in words):
        raise InputError(f"{where} has the label {infinite[0]}; labels must be whole numbers or words")
    if not all(NUMBER.fullmatch(word) for word in words):
        return {}
    plain = {}
    for word in words:
        number = Decimal(word)
        if number != number.to_integral_value():
            raise InputError(f"{where} has the label {word}; labels must be whole numbers or words")
        plain[word] = str(int(number))
    return plain


def _ordered(labels: set[str]) -> list[str]:
    whole = all(WHOLE.fullmatch(label) for label in labels)
    return sorted(labels, key=int) if whole else sorted(labels)


def _check_count(labels: set[str], where: str, missing: int) -> None:
    if not 2 <= len(labels) <= MOST_CLASSES:
        found = f"{len(labels)} different labels" if labels else "no label"
        found = f"only {next(iter(labels))}" if len(labels) == 1 else found
        rest = f" besides {missing} rows without a label" if missing else ""
        raise InputError(f"{where} has {found}{rest}; it must hold 2 to {MOST_CLASSES} classes")


def _doubts(classes: list[str]) -> tuple[Note, ...]:
    """What may be no class, or the same class twice."""
    numbers = [label for label in classes if NUMBER.fullmatch(label) or LOOSE.fullmatch(label)]
    words = [label for label in classes if label not in numbers]
    found = {
        BESIDE: words if numbers else [],
        BY_CASE: _alike(classes, str.casefold),
        AS_NUMBERS: _alike([label for label in classes if LOOSE.fullmatch(label)], Decimal),
        OFTEN_MISSING: [label for label in classes if label.lower() in OFTEN],
    }
    return tuple(note(kind, map(repr, labels)) for kind, labels in found.items() if labels)


def _alike(labels: list[str], form: Callable[[str], object]) -> list[str]:
    """The labels that share their form with another."""
    forms = Counter(map(form, labels))
    return [label for label in labels if forms[form(label)] > 1]
