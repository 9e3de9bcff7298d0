"""Cells of CSV files, which people open with spreadsheets."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")
BEGINS_FORMULAS = tuple("=+-@＝＋－＠")


def inert(value: T) -> T | str:
    """The value; a text that a spreadsheet would take for a formula, after an apostrophe.

    Numbers stay numbers, also those that are written as text. Carriage returns become line feeds: only those are
    quoted, and what follows an unquoted one begins a cell.
    """
    if not isinstance(value, str):
        return value
    text = value.replace("\r\n", "\n").replace("\r", "\n")
    if not text.lstrip().startswith(BEGINS_FORMULAS):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
