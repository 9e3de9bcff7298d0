"""Own images sorted into one folder per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from unlearn_core import checks
from unlearn_core.checks import InputError
from unlearn_core.datasets.raw import Raw, stratified_order
from unlearn_core.registry import DATASETS

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm"}
SPLIT_SEED = 0


@DATASETS.register("image_folder")
@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """Own images in folders named after their class: path/CLASS/*.png, or path/train/CLASS and path/test/CLASS.

    The held-out folder may also be called val. Images become RGB, cut to their central square and resized.
    """

    name: ClassVar[str] = "image_folder"
    path: str  # the folder; a relative path is looked up in the data root when there is one
    size: int = 32  # height and width, in pixels
    held_out: float = 0.2  # share of the images held out if there are no train and test folders, in (0, 1)

    def __post_init__(self) -> None:
        if not self.path:
            raise InputError("path must name a folder of images, but is empty")
        checks.in_range("size", self.size, 4, 512)
        checks.in_range("held_out", self.held_out, 0.01, 0.9)

    def load(self, data_root: Path | None, *, download: bool = False) -> Raw:
        """Read all images; they are never downloaded."""
        root = (data_root or Path()) / Path(self.path).expanduser()
        if not root.is_dir():
            raise InputError(f"{root.absolute()}: there is no such folder")
        for held_out in ("test", "val"):
            if (root / "train").is_dir() and (root / held_out).is_dir():
                return self._load_parts(root / "train", root / held_out)
        return self._load_whole(root)

    def _load_parts(self, train: Path, test: Path) -> Raw:
        classes = class_names(train)
        unknown = sorted(set(subfolders(test)) - set(classes))
        if unknown:
            raise InputError(f"{test}: classes {', '.join(unknown)} do not occur in {train}")
        x_train, y_train = self._read(train, classes)
        held_out = subfolders(test)  # may lack some classes
        x_test, y_test = self._read(test, held_out)
        label = np.array([classes.index(name) for name in held_out])
        return Raw(x_train, y_train, x_test, label[y_test], len(classes))

    def _load_whole(self, root: Path) -> Raw:
        classes = class_names(root)
        x, y = self._read(root, classes)
        if len(y) == len(classes):
            raise InputError(f"{root}: one image per class leaves none to hold out")
        # The order starts with one image of each class, so that no class is held out as a whole.
        count = min(max(len(classes), round((1 - self.held_out) * len(y))), len(y) - 1)
        order = stratified_order(y, seed=SPLIT_SEED)
        train, test = np.sort(order[:count]), np.sort(order[count:])
        return Raw(x[train], y[train], x[test], y[test], len(classes))

    def _read(self, root: Path, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Images (n, size, size, 3) and labels (n,), class by class in the order of file names."""
        images, labels = [], []
        for label, name in enumerate(classes):
            files = sorted(file for file in (root / name).iterdir() if file.suffix.lower() in SUFFIXES)
            if not files:
                raise InputError(f"{root / name}: no images ({', '.join(sorted(SUFFIXES))}) in this class folder")
            images += [read_image(file, self.size) for file in files]
            labels += [label] * len(files)
        if not images:
            raise InputError(f"{root}: no class folders with images")
        return np.stack(images), np.array(labels, dtype=np.int64)


def subfolders(root: Path) -> list[str]:
    """Sorted names of the visible folders in `root`."""
    return sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def class_names(root: Path) -> list[str]:
    """Names of the class folders in `root`; InputError unless there are two or more."""
    names = subfolders(root)
    if len(names) < 2:
        found = f"only the folder {names[0]}" if names else "no folders"
        raise InputError(f"{root}: expected a folder of images for each of two or more classes, but found {found}")
    return names


def read_image(file: Path, size: int) -> np.ndarray:
    """One image as (size, size, 3) uint8; InputError names a file that cannot be read."""
    from PIL import Image, ImageOps  # only this source needs it

    try:
        with Image.open(file) as image:
            return np.asarray(ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BILINEAR))
    # Pillow reports broken PNG chunks as SyntaxError
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(f"{file}: not a readable image ({error})") from error
