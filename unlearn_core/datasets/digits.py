"""The handwritten digits that ship with scikit-learn: real images without a download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch.nn import functional

from unlearn_core import checks
from unlearn_core.datasets.raw import Raw, stratified_order
from unlearn_core.datasets.reading import Reading
from unlearn_core.datasets.row_names import RowNames
from unlearn_core.registry import DATASETS

TRAIN_ROWS = 1200  # of 1,797; the library has no split
SPLIT_SEED = 0


@DATASETS.register("digits")
@dataclass(frozen=True, kw_only=True)
class Digits:
    """scikit-learn's 8x8 grey digits (1,200 training and 597 held-out images), enlarged so that image attacks apply.

    Source: UCI "Optical Recognition of Handwritten Digits", test part.
    """

    name: ClassVar[str] = "digits"
    size: int = 32  # height and width after bilinear enlargement, in pixels

    def __post_init__(self) -> None:
        checks.in_range("size", self.size, 8, 256)

    def load(self, data_root: Path | None, *, download: bool = False) -> Raw:
        """The embedded images; `data_root` and `download` are not needed."""
        # Imported here because it takes a second and only this source needs it.
        from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
        pixels, labels = self._enlarge(images.reshape(-1, 8, 8)), labels.astype(np.int64)
        order = stratified_order(labels, seed=SPLIT_SEED)
        train, test = np.sort(order[:TRAIN_ROWS]), np.sort(order[TRAIN_ROWS:])
        reading = Reading(
            rows_found=len(pixels),
            class_names=tuple(map(str, range(10))),
            used=("scikit-learn's digits",),
            train_names=RowNames("digit ", train),
            test_names=RowNames("digit ", test),
        )
        return Raw(pixels[train], labels[train], pixels[test], labels[test], classes=10, reading=reading)

    def _enlarge(self, images: np.ndarray) -> np.ndarray:
        """(n, 8, 8) ink in 0 .. 16 to (n, size, size, 1) uint8."""
        grey = torch.from_numpy(images).float().unsqueeze(1) * (255 / 16)
        large = functional.interpolate(grey, size=(self.size, self.size), mode="bilinear", align_corners=False)
        return large.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
