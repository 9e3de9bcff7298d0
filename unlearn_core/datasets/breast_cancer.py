"""The breast cancer table that ships with scikit-learn: a real table without a download."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from unlearn_core.datasets.raw import Raw, stratified_order
from unlearn_core.datasets.reading import Reading
from unlearn_core.datasets.row_names import RowNames
from unlearn_core.registry import DATASETS

TRAIN_ROWS = 400  # of 569; the library has no split
SPLIT_SEED = 0


@DATASETS.register("breast_cancer")
@dataclass(frozen=True, kw_only=True)
class BreastCancer:
    """scikit-learn's table of breast tumours: 30 measurements, benign (1) or malignant (0); 400 training rows.

    Source: UCI "Breast Cancer Wisconsin (Diagnostic)"; Street, Wolberg, Mangasarian, SPIE 1993.
    """

    name: ClassVar[str] = "breast_cancer"

    def load(self, data_root: Path | None, *, download: bool = False) -> Raw:
        """The embedded table; `data_root` and `download` are not needed."""
        # Imported here because it takes a second and only this source and the digits need it.
        from sklearn.datasets import load_breast_cancer

        table = load_breast_cancer()
        x, y = table.data, table.target
        order = stratified_order(y, seed=SPLIT_SEED)
        train, test = np.sort(order[:TRAIN_ROWS]), np.sort(order[TRAIN_ROWS:])
        labels = y.astype(np.int64)
        reading = Reading(
            rows_found=len(x),
            class_names=tuple(map(str, table.target_names)),
            used=("scikit-learn's breast cancer table",),
            columns=tuple(map(str, table.feature_names)),
            train_names=RowNames("row ", train),
            test_names=RowNames("row ", test),
        )
        return Raw(x[train], labels[train], x[test], labels[test], classes=2, reading=reading)
