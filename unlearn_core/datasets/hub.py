"""Texts from a data set in a local hub cache; nothing is ever fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unlearn_core.checks import InputError, shown
from unlearn_core.datasets.parquet_file import open_parquet, read, shared_values
from unlearn_core.host.files import check_size
from unlearn_core.models.pretrained import snapshot


class HubPart(NamedTuple):
    """Texts of one part, their (n,) int64 labels, what to call them, and the files they come from."""

    texts: list[str]
    labels: np.ndarray
    names: list[str]
    files: list[Path]


def read_hub(path: str, part: str, column: str) -> HubPart:
    """Texts without the blanks around them, and labels, of the Parquet files of one part.

    Raises InputError.

    Args:
        path: A data set's folder in a hub cache (`datasets--NAME`), or a folder with the files.
        part: What their names begin with, such as train.
        column: Name of the column of texts; labels are in `label`.
    """
    found = HubPart([], np.array([], dtype=np.int64), [], part_files(snapshot(path), part))
    labels: list[int] = []
    for file in found.files:
        rows = read_columns(file, (column, "label"))
        check_size(file, sum(len(text) for text in rows[column]))
        found.texts.extend(text.strip() for text in rows[column])
        labels += rows["label"]
        found.names.extend(f"{file.name}, row {number}" for number in range(1, len(rows["label"]) + 1))
    return found._replace(labels=np.array(labels, dtype=np.int64))


def part_files(folder: Path, part: str) -> list[Path]:
    """The part's files, which must lie in one folder: several would be several data sets."""
    files = sorted(file for file in folder.rglob("*.parquet") if file.name.startswith((f"{part}-", f"{part}.")))
    folders = sorted({str(file.parent) for file in files})
    if len(folders) != 1:
        found = f"{', '.join(folders)} have such files; name one of them" if folders else "there is none"
        raise InputError(f"hub must be a folder with {part}-*.parquet, but in {folder.absolute()} {found}")
    return files


def read_columns(file: Path, names: tuple[str, str]) -> dict[str, list[Any]]:
    """A column of texts and one of whole numbers of a Parquet file, none of whose values may be missing."""
    from pyarrow import types  # imported here because only this format needs it

    opened = open_parquet(file, ".tsv")
    table = read(opened, file, [name for name in names if name in opened.schema_arrow.names])
    for name in names:
        if name not in table.column_names or table.column(name).null_count:
            raise InputError(f"{file}: column {name} is needed, with a value in every row")
    texts, labels = map(table.column, names)
    if not types.is_integer(labels.type):
        raise InputError(f"{file}: column {names[1]} must hold whole numbers, but holds {labels.type}")
    values = shared_values(texts) if types.is_dictionary(texts.type) else texts.to_pylist()
    odd = next((value for value in values if not isinstance(value, str)), None)
    if odd is not None:
        raise InputError(f"{file}: column {names[0]} must hold texts, but has {shown(odd)}")
    return {names[0]: values, names[1]: labels.to_pylist()}
