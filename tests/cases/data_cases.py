"""Small data sets as people really have them: right ones, and one for each thing that can be wrong with values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from unlearn_core.datasets import Raw
from unlearn_core.datasets.tokens import Tokenizer, learn_rules

TRAIN, HELD_OUT = 60, 30
Arrays = dict[str, np.ndarray]


class Held(NamedTuple):
    """A source that already has its arrays."""

    raw: Raw
    name: str = "held"

    def load(self, data_root: Path | None, *, download: bool = False) -> Raw:
        return self.raw


def images(*, classes: int = 3, seed: int = 0) -> Arrays:
    """Noise: 8x8 grey images that nothing is wrong with."""
    random = np.random.default_rng(seed)
    return {
        "x_train": random.integers(0, 256, (TRAIN, 8, 8), dtype=np.uint8),
        "y_train": np.arange(TRAIN) % classes,
        "x_test": random.integers(0, 256, (HELD_OUT, 8, 8), dtype=np.uint8),
        "y_test": np.arange(HELD_OUT) % classes,
    }


def leak(arrays: Arrays) -> None:
    """Every held-out image is a training image."""
    arrays["x_test"] = arrays["x_train"][:HELD_OUT]


def overlap(arrays: Arrays) -> None:
    arrays["x_test"][:4] = arrays["x_train"][:4]


def duplicates(arrays: Arrays) -> None:
    arrays["x_train"][30:35] = arrays["x_train"][:5]
    arrays["y_train"][30:35] = arrays["y_train"][:5]


def contradiction(arrays: Arrays) -> None:
    """The same three images in two classes."""
    arrays["x_train"][31:34] = arrays["x_train"][:3]


def all_equal(arrays: Arrays) -> None:
    arrays["x_train"][:] = 7


def equal_held_out(arrays: Arrays) -> None:
    arrays["x_test"][:] = 200


def equal_class(arrays: Arrays) -> None:
    arrays["x_train"][arrays["y_train"] == 1] = 9


def divided_by_255(arrays: Arrays) -> None:
    """As somebody normalised the held-out images and stored them as whole numbers again."""
    arrays["x_test"] = np.rint(arrays["x_test"] / 255).astype(np.uint8)


def darker(arrays: Arrays) -> None:
    arrays["x_test"] = arrays["x_test"] // 8


def clipped_class(arrays: Arrays) -> None:
    """Black and white in one class, as 16 bits that were clipped to 8."""
    own = arrays["y_train"] == 0
    arrays["x_train"][own] = np.where(arrays["x_train"][own] > 9, 255, 0)


def bright_class(arrays: Arrays) -> None:
    arrays["x_train"][arrays["y_train"] == 2] //= 4


def no_class_0(arrays: Arrays) -> None:
    """No held-out row of class 0."""
    arrays["y_test"] = 1 + np.arange(HELD_OUT) % 2


def only_class_0(arrays: Arrays) -> None:
    """Held-out rows of the class that backdoors aim at alone."""
    arrays["y_test"][:] = 0


def nothing(arrays: Arrays) -> None:
    """Left as it is."""


class Case(NamedTuple):
    """What the command answers. told: a regular expression in its error or its warnings; empty: it says nothing.
    refused: whether that is an error."""

    change: Callable[[Arrays], None]
    told: str
    refused: bool = False
    attack: dict[str, Any] | None = None


PATCH = {"name": "badnets", "fraction": 0.1, "size": 2}
CONFUSION = {"name": "interclass_confusion", "fraction": 0.1, "first": 0, "second": 1}
PAIR = {"name": "label_flip", "fraction": 0.1, "mode": "pair", "source": 0, "target": 1}

CASES = {
    "right": Case(nothing, ""),
    "leak": Case(leak, r"all 10 validation rows and all 20 test rows are training rows, too", refused=True),
    "overlap": Case(overlap, r"test rows? (is a|are) training rows?, too \(x_test, row \d+ = x_train, row \d+"),
    "duplicates": Case(duplicates, r"5 training rows repeat another one \(such as x_train, row \d+ = x_train, row \d"),
    "contradiction": Case(contradiction, r"6 rows with equal inputs and different labels \(such as x_train, row"),
    "all_equal": Case(all_equal, "all 60 training rows have the same input", refused=True),
    "equal_held_out": Case(equal_held_out, "all 10 validation rows have the same input", refused=True),
    "equal_class": Case(equal_class, r"1 class has the same input in all training rows \(1\)"),
    "divided_by_255": Case(divided_by_255, "training pixels reach 255, held-out ones 1", refused=True),
    "darker": Case(darker, "30 held-out images have another scale of pixels than the training images"),
    "clipped_class": Case(clipped_class, "20 of the 60 training images have two pixel levels or fewer, all of class 0"),
    "bright_class": Case(bright_class, "20 training images of class 2 differ from all others by a single number"),
    "no_class_0": Case(no_class_0, r"1 class has no validation row \(0\)"),
    "only_class_0": Case(
        only_class_0, r"'badnets' cannot be measured on the validation rows: .*they have no row of classes 1, 2", True
    ),
    "no_row_of_the_pair": Case(
        lambda a: a["y_test"].fill(2),
        "'interclass_confusion' cannot be measured on the validation rows: .*no row of classes 0, 1",
        True,
        CONFUSION,
    ),
    "no_source_row": Case(
        no_class_0, "'label_flip' cannot be measured on the validation rows: .*no row of class 0: hold", True, PAIR
    ),
}


def write(name: str, folder: Path) -> Path:
    """The case as an .npz file."""
    arrays, path = images(), folder / f"{name}.npz"
    CASES[name].change(arrays)
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def table(x: np.ndarray, y: np.ndarray, *, held_out: int, **reading: Any) -> Raw:
    """A table (n, columns) whose last rows are held out."""
    x = x.astype(np.float64)
    return Raw(x[:-held_out], y[:-held_out], x[-held_out:], y[-held_out:], int(y.max()) + 1, **reading)


def texts(train: list[str], y_train: np.ndarray, held_out: list[str], y_held_out: np.ndarray) -> Raw:
    """Token ids of these texts."""
    tokenizer = Tokenizer(learn_rules(train, 400), 16)
    x_train, x_test = tokenizer.encode(train), tokenizer.encode(held_out)
    return Raw(x_train, y_train, x_test, y_held_out, int(y_train.max()) + 1, tokenizer)
