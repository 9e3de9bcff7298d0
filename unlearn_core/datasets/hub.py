"""Texts from a data set in a local hub cache; nothing is ever fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from unlearn_core.checks import InputError
from unlearn_core.pretrained import snapshot


def read_hub(path: str, part: str, column: str) -> tuple[list[str], np.ndarray]:
    """Texts without the blanks around them, and (n,) int64 labels, of the Parquet files of one part.

    path: a data set's folder in a hub cache (`datasets--NAME`), or a folder with the files. part: what their names
    begin with, such as train. column: name of the column of texts; labels are in `label`. Raises InputError.
    """
    texts: list[str] = []
    labels: list[int] = []
    for file in part_files(snapshot(path), part):
        rows = read_columns(file, (column, "label"))
        texts += [str(text).strip() for text in rows[column]]
        labels += rows["label"]
    return texts, np.array(labels, dtype=np.int64)


def part_files(folder: Path, part: str) -> list[Path]:
    """The part's files, which must lie in one folder: several would be several data sets."""
    files = sorted(file for file in folder.rglob("*.parquet") if file.name.startswith((f"{part}-", f"{part}.")))
    folders = sorted({str(file.parent) for file in files})
    if len(folders) != 1:
        found = f"{', '.join(folders)} have such files; name one of them" if folders else "there is none"
        raise InputError(f"hub must be a folder with {part}-*.parquet, but in {folder.absolute()} {found}")
    return files


def read_columns(file: Path, names: tuple[str, ...]) -> dict[str, list[Any]]:
    """Columns of a Parquet file, none of whose values may be missing."""
    try:
        import pyarrow as arrow  # imported here because only this format needs it
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"{file}: Parquet files need pyarrow; install it, or save the texts as .tsv") from None
    try:
        table = parquet.ParquetFile(file).read(columns=list(names))
    except (OSError, arrow.ArrowException) as problem:
        raise InputError(f"{file}: cannot be read ({problem})") from None
    for name in names:
        if name not in table.column_names or table.column(name).null_count:
            raise InputError(f"{file}: column {name} is needed, with a value in every row")
    return {name: table.column(name).to_pylist() for name in names}
