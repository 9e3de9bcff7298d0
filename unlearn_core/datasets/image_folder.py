"""Own images sorted into one folder per class."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from unlearn_core import checks
from unlearn_core.checks import InputError
from unlearn_core.datasets.raw import Raw
from unlearn_core.registry import DATASETS


@DATASETS.register("image_folder")
@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """Own images in folders named after their class: path/CLASS, or path/train/CLASS and path/test/CLASS.

    The held-out folder may also be called val or the like. Folders within a class belong to it. Every format that
    Pillow decodes is read. Images become RGB of 8 bits, cut to their central square and resized. Classes are in the
    order of their names, or of their numbers if all names are whole numbers.
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
        # Imported here because only this source needs Pillow.
        from unlearn_core.datasets.folder_reading import read_folder

        root = (data_root or Path()) / Path(self.path).expanduser()
        if os.path.isfile(root):
            raise InputError(f"{root.absolute()} is a file, not a folder of images; unpack it, or give its folder")
        if not os.path.isdir(root):  # unlike the method of Path, this raises nothing
            raise InputError(f"{root.absolute()}: there is no such folder")
        return read_folder(root, size=self.size, held_out=self.held_out)
