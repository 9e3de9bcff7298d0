"""CIFAR and MNIST data sets in torchvision's own file formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from unlearn_core.checks import InputError
from unlearn_core.datasets.npz import read_npz
from unlearn_core.datasets.raw import Raw, check_raw
from unlearn_core.datasets.reading import Reading
from unlearn_core.registry import DATASETS

# What torchvision raises on missing, damaged and cut-off files, by data set and by the place of the damage.
DAMAGE = (OSError, RuntimeError, ValueError, TypeError, AssertionError, LookupError, EOFError)


@DATASETS.register("cifar10")
@dataclass(frozen=True, kw_only=True)
class Cifar10:
    """CIFAR-10: 50,000 training and 10,000 held-out 32x32 colour images in 10 classes, or one file cifar10.npz."""

    name: ClassVar[str] = "cifar10"

    def load(self, data_root: Path | None, *, download: bool = False) -> Raw:
        if data_root is not None and (data_root / "cifar10.npz").exists():
            return read_npz(data_root / "cifar10.npz")
        return _load("CIFAR10", self.name, data_root, folder="cifar-10-batches-py", classes=10, download=download)


@DATASETS.register("cifar100")
@dataclass(frozen=True, kw_only=True)
class Cifar100:
    """CIFAR-100: 50,000 training and 10,000 held-out 32x32 colour images in 100 classes."""

    name: ClassVar[str] = "cifar100"

    def load(self, data_root: Path | None, *, download: bool = False) -> Raw:
        return _load("CIFAR100", self.name, data_root, folder="cifar-100-python", classes=100, download=download)


@DATASETS.register("mnist")
@dataclass(frozen=True, kw_only=True)
class Mnist:
    """MNIST: 60,000 training and 10,000 held-out 28x28 grey images of handwritten digits."""

    name: ClassVar[str] = "mnist"

    def load(self, data_root: Path | None, *, download: bool = False) -> Raw:
        return _load("MNIST", self.name, data_root, folder="MNIST/raw", classes=10, download=download)


@DATASETS.register("fashion_mnist")
@dataclass(frozen=True, kw_only=True)
class FashionMnist:
    """Fashion-MNIST: 60,000 training and 10,000 held-out 28x28 grey images of clothes in 10 classes."""

    name: ClassVar[str] = "fashion_mnist"

    def load(self, data_root: Path | None, *, download: bool = False) -> Raw:
        return _load("FashionMNIST", self.name, data_root, folder="FashionMNIST/raw", classes=10, download=download)


def _load(kind: str, name: str, data_root: Path | None, *, folder: str, classes: int, download: bool) -> Raw:
    """Both parts of torchvision's data set class `kind`, which keeps its files in data_root/folder."""
    if data_root is None:
        raise InputError(f"{name} needs a folder for its files: give --data-root FOLDER (and --download to fetch them)")
    place = data_root / folder
    if not download and not place.is_dir():
        raise InputError(f"{name}: no folder {place.absolute()}; give --download to fetch it, or another --data-root")
    # Imported here because it takes a second and only these sources need it.
    from torchvision import datasets

    try:
        train, test = (getattr(datasets, kind)(data_root, train=part, download=download) for part in (True, False))
    except DAMAGE as error:
        problem = f"download failed ({error})" if download else "files missing or damaged"
        remedy = "delete damaged files, then give --download, or give another --data-root"
        raise InputError(f"{name}: {problem} in {place.absolute()}; {remedy}") from error
    reading = _reading(train, test, place, classes)
    return check_raw(Raw(*_arrays(train), *_arrays(test), classes, reading=reading), str(place))


def _reading(train: Any, test: Any, place: Path, classes: int) -> Reading:
    """With the names of the classes that the files or torchvision have for them; all rows are used."""
    names = tuple(map(str, train.classes))
    if len(names) != classes:
        raise InputError(f"{place.absolute()}: the files name {len(names)} classes, not {classes}; fetch them again")
    return Reading(
        rows_found=len(train) + len(test),
        class_names=names,
        used=(f"{place}: {len(train):,} training and {len(test):,} test images",),
    )


def _arrays(part: Any) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, h, w, c) uint8 and labels (n,) int64 of a torchvision data set."""
    x = np.asarray(part.data, dtype=np.uint8)
    return (x[..., np.newaxis] if x.ndim == 3 else x), np.asarray(part.targets, dtype=np.int64)
