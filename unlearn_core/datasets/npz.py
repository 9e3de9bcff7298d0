"""Image data sets in one .npz file, for users' own data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from unlearn_core.checks import InputError
from unlearn_core.datasets.npz_file import array_names, open_npz
from unlearn_core.datasets.raw import Raw, check_raw
from unlearn_core.datasets.reading import Note, Reading, Words, note
from unlearn_core.datasets.row_names import RowNames, numbered, present, rows_note
from unlearn_core.registry import DATASETS

KEYS = ("x_train", "y_train", "x_test", "y_test")
UNUSED = Words("array that is not used", "arrays that are not used")
ROUNDED = Words("image of floats rounded to 256 levels", "images of floats rounded to 256 levels")
ROUNDING = 1e-4  # levels by which pixels divided by 255 in single precision are off


@DATASETS.register("npz")
@dataclass(frozen=True, kw_only=True)
class Npz:
    """Own images from one .npz file with the arrays x_train, y_train, x_test and y_test.

    Images: (n, height, width) or (n, height, width, channels), uint8, or floats in [0, 1], which are rounded to 256
    levels. Labels: (n,) whole numbers 0 .. classes - 1.
    """

    name: ClassVar[str] = "npz"
    path: str  # the file; a relative path is looked up in the data root when there is one

    def __post_init__(self) -> None:
        if not self.path:
            raise InputError("path must name an .npz file, but is empty")

    def load(self, data_root: Path | None, *, download: bool = False) -> Raw:
        """Read the file; it is never downloaded."""
        return read_npz((data_root or Path()) / Path(self.path).expanduser())


def read_npz(path: Path) -> Raw:
    """Read and check one file; every defect raises InputError naming it."""
    arrays = open_npz(path, KEYS)
    x_train, x_test = (_pixels(arrays[key], f"{path}: {key}") for key in ("x_train", "x_test"))
    y_train, y_test = (_labels(arrays[key], f"{path}: {key}") for key in ("y_train", "y_test"))
    classes = int(y_train.max(initial=0)) + 1
    unused = [name for name in array_names(path) if name not in KEYS]
    train_names, test_names = (numbered(f"{key}, row ", len(arrays[key])) for key in ("x_train", "x_test"))
    reading = Reading(
        rows_found=len(x_train) + len(x_test),
        class_names=tuple(map(str, range(classes))) if classes <= len(y_train) else (),  # with gaps it is refused
        used=(f"{path.name}: {', '.join(KEYS)}",),
        train_names=train_names,
        test_names=test_names,
        left_out=(note(UNUSED, unused),) if unused else (),
        coerced=present(
            _rounded(arrays["x_train"], x_train, train_names), _rounded(arrays["x_test"], x_test, test_names)
        ),
    )
    return check_raw(Raw(x_train, y_train, x_test, y_test, classes, reading=reading), str(path))


def _rounded(given: np.ndarray, pixels: np.ndarray, names: RowNames) -> Note | None:
    """A note on the images whose values do not lie on the 256 levels."""
    if given.dtype == np.uint8:
        return None
    tolerance = max(ROUNDING, 255 * float(np.finfo(given.dtype).eps))
    changed = [np.abs(x * 255 - kept.reshape(x.shape)).max() > tolerance for x, kept in zip(given, pixels, strict=True)]
    rows = np.flatnonzero(changed)
    return rows_note(ROUNDED, rows, (names[int(row)] for row in rows))


def _pixels(x: np.ndarray, where: str) -> np.ndarray:
    """Images as (n, height, width, channels) uint8."""
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[-1] > 4):
        shapes = "(n, height, width) or (n, height, width, channels) with at most 4 channels"
        first = x.ndim == 4 and x.shape[1] <= 4
        fix = "; put the channels last, with x.transpose(0, 2, 3, 1)" if first else ""
        raise InputError(f"{where} must have shape {shapes}, but has {x.shape}{fix}")
    x = x[..., np.newaxis] if x.ndim == 3 else x
    if x.dtype == np.uint8:
        return x
    if not np.issubdtype(x.dtype, np.floating):
        raise InputError(f"{where} must be uint8, or floats in [0, 1], but is {x.dtype}")
    if np.isnan(x).any():
        raise InputError(f"{where} has values that are missing (NaN), first in row {_first_nan(x)}; take them out")
    low, high = (x.min(), x.max()) if x.size else (0, 0)
    if low < 0 or high > 1:
        fix = "store pixels of 0 .. 255 as uint8, others as floats in [0, 1]"
        raise InputError(f"{where} has floats outside [0, 1]: from {low:g} to {high:g}; {fix}")
    return np.rint(x * 255).astype(np.uint8)


def _first_nan(x: np.ndarray) -> int:
    """The number of the row (n, ...), which counts from 1."""
    return int(np.isnan(x).reshape(len(x), -1).any(axis=1).argmax()) + 1


def _labels(y: np.ndarray, where: str) -> np.ndarray:
    if y.ndim != 1:
        fix = "with y.ravel()" if y.shape[-1:] == (1,) else "of one-hot labels with y.argmax(axis=1)"
        fix = f"make it so {fix}" if y.ndim == 2 else "store one label per image"
        raise InputError(f"{where} must have shape (n,), but has {y.shape}; {fix}")
    if not np.issubdtype(y.dtype, np.integer):
        odd = [str(value) for value in y if not _is_whole(value)]
        example = f", such as {odd[0]}; number the classes from 0" if odd else "; store y.astype(int)"
        raise InputError(f"{where} must hold whole numbers, but is {y.dtype}{example}")
    if y.size and y.min() < 0:
        raise InputError(f"{where} has the negative label {y.min()}; labels count the classes from 0")
    if y.size and y.max() > np.iinfo(np.int64).max:  # would turn negative below
        raise InputError(f"{where} has the label {y.max()}; labels count the classes from 0")
    return y.astype(np.int64)


def _is_whole(value: object) -> bool:
    return isinstance(value, np.floating) and float(value).is_integer()
