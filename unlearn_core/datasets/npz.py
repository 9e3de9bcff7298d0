"""Image data sets in one .npz file, for users' own data."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from unlearn_core.checks import InputError
from unlearn_core.datasets.raw import Raw, check_raw
from unlearn_core.registry import DATASETS

KEYS = ("x_train", "y_train", "x_test", "y_test")


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
    return check_raw(Raw(x_train, y_train, x_test, y_test, classes), str(path))


def open_npz(path: Path, keys: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """The arrays called `keys`, all if None; every defect raises InputError naming the file."""
    if not path.is_file():
        raise InputError(f"{path.absolute()}: there is no such file")
    if not zipfile.is_zipfile(path):  # also guards against numpy's pickle fallback for other files
        raise InputError(f"{path}: not an .npz file, or one that was cut short")
    try:
        with np.load(path, allow_pickle=False) as stored:
            wanted = keys or stored.files
            missing = [key for key in wanted if key not in stored.files]
            if missing:
                raise InputError(f"{path}: {', '.join(missing)} missing; the file holds {', '.join(stored.files)}")
            return {key: stored[key] for key in wanted}
    except InputError:
        raise
    # numpy passes on whatever the zip layer or its own header parser meets; ValueError is also a refused pickle
    except (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); is it damaged?") from error


def _pixels(x: np.ndarray, where: str) -> np.ndarray:
    """Images as (n, height, width, channels) uint8."""
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[-1] > 4):
        shapes = "(n, height, width) or (n, height, width, channels) with at most 4 channels"
        raise InputError(f"{where} must have shape {shapes}, but has {x.shape}")
    x = x[..., np.newaxis] if x.ndim == 3 else x
    if x.dtype == np.uint8:
        return x
    if not np.issubdtype(x.dtype, np.floating):
        raise InputError(f"{where} must be uint8, or floats in [0, 1], but is {x.dtype}")
    if x.size and not (x.min() >= 0 and x.max() <= 1):  # written so that NaN fails too
        raise InputError(f"{where} has floats outside [0, 1]: from {x.min():g} to {x.max():g}")
    return np.rint(x * 255).astype(np.uint8)


def _labels(y: np.ndarray, where: str) -> np.ndarray:
    if y.ndim != 1:
        raise InputError(f"{where} must have shape (n,), but has {y.shape}")
    if not np.issubdtype(y.dtype, np.integer):
        raise InputError(f"{where} must hold whole numbers, but is {y.dtype}")
    if y.size and y.min() < 0:
        raise InputError(f"{where} has the negative label {y.min()}")
    return y.astype(np.int64)
