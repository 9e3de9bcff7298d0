"""Files of named arrays (.npz): what they declare is checked before any array is read."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path

import numpy as np

from unlearn_core.checks import InputError, shown
from unlearn_core.datasets.frame import Frame, text_cells
from unlearn_core.datasets.row_names import numbered
from unlearn_core.host.files import check_size, regular_file

ENDING = ".npy"


def open_npz(path: Path, keys: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """The arrays called `keys`, all if None; every defect raises InputError naming the file."""
    names = array_names(path)
    missing = [key for key in keys or () if key not in names]
    if missing:
        raise InputError(f"{path}: {', '.join(missing)} missing; the file holds {', '.join(names)}")
    wanted = keys or names
    with _defects(path), zipfile.ZipFile(path) as archive:
        check_size(path, sum(_declared(archive, name, path) for name in wanted))
    with _defects(path), np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in wanted}


def array_names(path: Path) -> tuple[str, ...]:
    """What the file holds; InputError if it is no .npz file."""
    regular_file(path)
    if not zipfile.is_zipfile(path):  # also guards against numpy's pickle fallback for other files
        raise InputError(f"{path}: not an .npz file, or one that was cut short")
    with _defects(path), zipfile.ZipFile(path) as archive:
        names = [name.removesuffix(ENDING) for name in archive.namelist()]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"{path}: {shown(twice[0])} comes twice; each array needs a different name")
    return tuple(names)


def read_npz_table(path: Path) -> Frame:
    """Columns by name; an array `x` with several columns gives x.0, x.1, ..."""
    columns: dict[str, np.ndarray] = {}
    blocks: dict[str, tuple[str, ...]] = {}
    for name, values in open_npz(path).items():
        if values.ndim not in (1, 2) or not values.size:
            raise InputError(f"{path}: {name} must have shape (n,) or (n, columns), but has {values.shape}")
        names = (name,) if values.ndim == 1 else tuple(f"{name}.{i}" for i in range(values.shape[1]))
        if values.ndim == 2:
            blocks[name] = names
        taken = [column for column in names if column in columns]
        if taken:
            raise InputError(f"{path}: two arrays give the column {taken[0]}; rename one of them")
        columns |= dict(zip(names, map(_cells, values.reshape(len(values), -1).T), strict=True))
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) != 1:
        raise InputError(f"{path}: columns must be of equal length, but have {shown(lengths)}")
    return Frame(
        path=path, columns=columns, names=numbered(f"{path.name}, row ", next(iter(lengths.values()))), blocks=blocks
    )


def _cells(values: np.ndarray) -> np.ndarray:
    return text_cells(values.tolist()) if values.dtype.kind in "US" else values


def _declared(archive: zipfile.ZipFile, name: str, path: Path) -> int:
    """Bytes of an array, by its own header and by that of the archive."""
    member = name + ENDING
    if member not in archive.namelist():
        raise InputError(f"{path}: {shown(name)} is no array; take it out of the file")
    with archive.open(member) as content:
        version = np.lib.format.read_magic(content)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(content)
    if dtype.hasobject:
        raise InputError(
            f"{path}: cannot be read, {name} holds Python objects; store it as numbers, or as text with astype(str)"
        )
    return max(archive.getinfo(member).file_size, prod(shape) * dtype.itemsize)


@contextmanager
def _defects(path: Path) -> Iterator[None]:
    """Whatever the zip layer or numpy's header parser meets becomes one InputError."""
    try:
        yield
    except InputError:
        raise
    # ValueError: also a header that is no header; RuntimeError: a password is needed, or an unknown compression
    except (OSError, ValueError, EOFError, KeyError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); is it damaged?") from error
    except (MemoryError, SyntaxError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: cannot be read ({type(error).__name__}); is it damaged?") from error
