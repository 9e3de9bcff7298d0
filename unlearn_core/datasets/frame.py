"""A table as it lies in a file: columns of cells by name, whatever the format."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from unlearn_core.datasets.reading import Note
from unlearn_core.datasets.row_names import RowNames


@dataclass(frozen=True, kw_only=True)
class Frame:
    """All rows of a file.

    Attributes:
        columns: (n,) cells by name: numbers, truth values, or objects: text, None where a cell is empty.
        names: What to call each row.
        typed: Whether the file distinguishes numbers from text.
        index: Names of columns that number the rows and were written by pandas.
        blocks: Arrays (n, k) of an .npz file by name, with the names of their k columns.
        left_out: Columns that hold nothing.
    """

    path: Path
    columns: dict[str, np.ndarray]
    names: RowNames
    typed: bool = True
    index: tuple[str, ...] = ()
    blocks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    left_out: tuple[Note, ...] = ()

    def rows(self, kept: np.ndarray) -> Frame:
        """These rows alone; kept: (n,) truth values."""
        if kept.all():
            return self
        columns = {name: cells[kept] for name, cells in self.columns.items()}
        return replace(self, columns=columns, names=self.names.at(kept))

    def without(self, *names: str) -> Frame:
        """Without these columns."""
        return replace(self, columns={name: cells for name, cells in self.columns.items() if name not in names})


def text_cells(cells: object) -> np.ndarray:
    """(n,) objects, which share equal strings, from a sequence of cells."""
    values = list(cells)  # type: ignore[call-overload]
    made = np.empty(len(values), dtype=object)
    made[:] = values
    return made
