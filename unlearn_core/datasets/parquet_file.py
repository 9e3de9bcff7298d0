"""Tables in Parquet files, which need pyarrow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unlearn_core.checks import InputError, shown
from unlearn_core.datasets.frame import Frame, text_cells
from unlearn_core.datasets.row_names import numbered
from unlearn_core.host.files import check_size, regular_file

INDEX = re.compile(r"__index_level_\d+__")
WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}  # bytes of a value in memory
OTHER = 8  # of text, whose equal values are kept once: a reference to each


def read_parquet(path: Path) -> Frame:
    """Columns by name; a missing number is NaN among floats, else None, as every other missing value."""
    file = open_parquet(path, ".csv")
    table = read(file, path)
    if not len(table):
        raise InputError(f"{path}: there are no rows")
    columns = {name: _cells(table.column(name)) for name in table.column_names}
    index = index_columns(file.schema_arrow)
    return Frame(
        path=path,
        columns=columns,
        names=numbered(f"{path.name}, row ", len(table)),
        index=tuple(name for name in columns if name in index or INDEX.fullmatch(name)),
    )


def index_columns(schema: Any) -> list[str]:
    """Names of the columns that pandas wrote as its index; the file says so."""
    try:
        index = (schema.pandas_metadata or {}).get("index_columns", [])
    except (ValueError, AttributeError):  # no JSON, or another kind than pandas writes
        return []
    return [name for name in index if isinstance(name, str)]  # an index that only counts is no column


def open_parquet(path: Path, instead: str) -> Any:
    """The file, whose size in memory has been checked; instead: ending of files that do without pyarrow."""
    regular_file(path)
    try:
        import pyarrow as arrow  # imported here because only this format needs it
        from pyarrow import parquet
    except ImportError:
        raise InputError(f"{path}: Parquet files need pyarrow; install it, or save it as {instead}") from None
    try:
        file = parquet.ParquetFile(path)
        texts = [column.path for column in file.schema if _is_text(column)]
        check_size(path, _declared(file.metadata))
        return parquet.ParquetFile(path, read_dictionary=texts)  # equal texts are kept once
    except (OSError, arrow.ArrowException) as problem:
        raise InputError(f"{path}: cannot be read ({problem})") from None


def _is_text(column: Any) -> bool:
    return bool(column.physical_type == "BYTE_ARRAY" and not column.max_repetition_level)


def _declared(metadata: Any) -> int:
    """Bytes that all values take in memory, however well they are packed."""
    size = 0
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            width = WIDTHS.get(column.physical_type, OTHER)
            size += max(column.total_uncompressed_size, column.num_values * width)
    return size


def read(file: Any, path: Path, columns: Sequence[str] | None = None) -> Any:
    """An Arrow table of these columns, or all, with different names."""
    import pyarrow as arrow

    names = file.schema_arrow.names
    twice = sorted({name for name in names if names.count(name) > 1} if len(set(names)) < len(names) else ())
    if twice:
        raise InputError(f"{path}: each column needs a different name, but {shown(twice[0])} comes twice")
    try:
        return file.read(columns=None if columns is None else list(columns))
    except (OSError, arrow.ArrowException) as problem:
        raise InputError(f"{path}: cannot be read ({problem})") from None


def _cells(column: Any) -> np.ndarray:
    from pyarrow import types

    kind = column.type
    if types.is_floating(kind) or (not column.null_count and (types.is_integer(kind) or types.is_boolean(kind))):
        return np.asarray(column.to_numpy())
    if types.is_dictionary(kind):
        return text_cells(shared_values(column))
    return text_cells(column.to_pylist())


def shared_values(column: Any) -> list[Any]:
    """The values of a dictionary column, each distinct one once in memory."""
    values: list[Any] = []
    for chunk in column.chunks:
        known = [*chunk.dictionary.to_pylist(), None]
        places = chunk.indices.fill_null(len(known) - 1).to_pylist()
        values += [known[place] for place in places]
    return values
