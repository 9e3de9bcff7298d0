"""From a source to normalised tensors: the same rows, split and statistics on every machine."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from unlearn_core import checks
from unlearn_core.checks import InputError
from unlearn_core.datasets.card import printable
from unlearn_core.datasets.describing import describe
from unlearn_core.datasets.parts import Part
from unlearn_core.datasets.raw import Raw, Source, check_raw, stratified_order
from unlearn_core.datasets.resize import resized
from unlearn_core.types import Dataset, Examples

# Never an experiment's seed: all scenarios of a data set share its rows and its split, so they can be compared.
TRAIN_SEED, HELD_OUT_SEED = 0, 1


def load_dataset(
    source: Source,
    *,
    data_root: Path | None,
    train_rows: int | None = None,
    held_out_rows: int | None = None,
    validation_share: float = 1 / 3,
    side: int | None = None,
    download: bool = False,
) -> Dataset:
    """Load, subset, split and normalise `source`; tensors are on the CPU.

    Args:
        source: The settings of a data source.
        data_root: Folder with the data files; sources that ship with a library do not need it.
        train_rows: How many rows to use, None for all. Rows come in one fixed order with balanced classes, so a smaller
            subset is part of a larger one.
        held_out_rows: As `train_rows`, for validation and test together.
        validation_share: Share of the held-out rows used for tuning, in (0, 1); the rest is for reporting.
        side: Height and width that images are resized to, in pixels; None leaves them as they are.
        download: Fetch missing files into `data_root` where the source can.

    Returns:
        Inputs float32 (n, channels, height, width) with mean 0 and deviation 1 per channel over the training rows, of a
        table float32 (n, columns) with mean 0 and deviation 1 per column, or of text (n, length) int64 token ids; ids
        are row numbers in the source's training part (train) or held-out part (validation and test).

    Raises:
        InputError: If files are missing or damaged, labels have gaps, there are too few rows, or a `side` is given for
            anything but images.
        MeaninglessDataError: An InputError, if no result on this data would mean anything.
    """
    raw = check_raw(source.load(data_root, download=download), source.name)
    _check_side(side, raw, source.name)
    train = _pick("train_rows", raw.y_train, train_rows, least=raw.classes, seed=TRAIN_SEED)
    held_out = _pick("held_out_rows", raw.y_test, held_out_rows, least=2, seed=HELD_OUT_SEED)
    validation, test = _cut(held_out, validation_share)
    parts = {
        "train": _part(raw.x_train, raw.y_train, train, side),
        "validation": _part(raw.x_test, raw.y_test, validation, side),
        "test": _part(raw.x_test, raw.y_test, test, side),
    }
    mean, std = STATISTICS[raw.kind](parts["train"].x)

    def examples(part: Part) -> Examples:
        return Examples(_inputs(raw.kind, part.x, mean, std), torch.from_numpy(part.y), torch.from_numpy(part.rows))

    dataset = Dataset(
        name=source.name,
        train=examples(parts["train"]),
        validation=examples(parts["validation"]),
        test=examples(parts["test"]),
        classes=raw.classes,
        mean=mean,
        std=std,
        digest=_digest(raw, parts),
        tokenizer=raw.tokenizer,
        card=describe(source.name, raw, parts),
    )
    return refuse_meaningless(dataset)


class MeaninglessDataError(InputError):
    """Data that can be read, but no result on it would mean anything."""

    def __init__(self, message: str, dataset: Dataset) -> None:
        super().__init__(message)
        self.dataset = dataset


def refuse_meaningless(dataset: Dataset) -> Dataset:
    """`dataset` itself, or MeaninglessDataError with all reasons; it names classes without held-out rows, too."""
    card = dataset.card
    if card is not None and card.errors:
        reasons = "; ".join([*card.errors, *map(str, card.absent)])
        raise MeaninglessDataError(printable(f"data set {card.name}: {reasons}"), dataset)
    return dataset


def channel_statistics(x: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of (n, h, w, channels) uint8 pixels, in units of [0, 1].

    A constant channel gets deviation 1, so that it can be divided by.
    """
    levels = np.arange(256)
    means, stds = [], []
    for channel in range(x.shape[-1]):
        # From whole-number counts: exact, so every machine gets the same statistics, and without a float copy.
        counts = torch.bincount(torch.from_numpy(x[..., channel].reshape(-1)), minlength=256).numpy()
        mean = counts @ levels / counts.sum()
        variance = counts @ (levels - mean) ** 2 / counts.sum()
        means.append(float(mean / 255))
        stds.append(float(np.sqrt(variance) / 255) or 1.0)
    return tuple(means), tuple(stds)


def column_statistics(x: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per column of (n, columns) numbers, in the unit of each column.

    A constant column gets deviation 1, so that it can be divided by. Sums are rounded once, so every machine gets the
    same statistics.
    """
    means, stds = [], []
    for column in x.T:
        constant = bool((column == column[0]).all())
        mean = float(column[0]) if constant else math.fsum(column.tolist()) / len(column)
        variance = math.fsum(((column - mean) ** 2).tolist()) / len(column)
        means.append(mean)
        stds.append(math.sqrt(variance) or 1.0)
    return tuple(means), tuple(stds)


STATISTICS = {"images": channel_statistics, "numbers": column_statistics, "texts": lambda x: ((), ())}


def _pick(field: str, labels: np.ndarray, rows: int | None, *, least: int, seed: int) -> np.ndarray:
    """The first `rows` of the fixed order, or all."""
    available = len(labels)
    if available < least:  # of training rows there is one of each class
        raise InputError(
            f"{field}: the data set has only {available} held-out row, but validation and test need one each; hold "
            f"more rows out"
        )
    wanted = available if rows is None else rows
    if not least <= wanted <= available:
        raise InputError(f"{field} must lie in [{least}, {available}] for this data set, but got {wanted}")
    return stratified_order(labels, seed=seed)[:wanted]


def _check_side(side: int | None, raw: Raw, where: str) -> None:
    if side is None:
        return
    if raw.kind != "images":
        raise InputError(f"side is for images, but {where} holds {raw.kind}; leave it out")
    checks.in_range("side", side, 4, 512)


def _part(x: np.ndarray, y: np.ndarray, rows: np.ndarray, side: int | None) -> Part:
    """These rows, images at the side that is asked for."""
    return Part(x[rows] if side is None else resized(x[rows], side), y[rows], rows)


def _cut(rows: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Validation and test rows; both get at least one."""
    checks.in_range("validation_share", share, 0.01, 0.99)
    count = min(max(round(share * len(rows)), 1), len(rows) - 1)
    return rows[:count], rows[count:]


def _inputs(kind: str, x: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """Rows of a source as a model reads them."""
    if kind == "texts":
        return torch.from_numpy(x)
    if kind == "numbers":
        return torch.from_numpy((x - np.array(mean)) / np.array(std)).float()
    return _standardise(x, mean, std)


def _standardise(x: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """(n, h, w, c) uint8 pixels to (n, c, h, w) float32 model inputs."""
    pixels = torch.from_numpy(x).permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    shape = (1, -1, 1, 1)
    return pixels.div_(255).sub_(torch.tensor(mean).view(shape)).div_(torch.tensor(std).view(shape))


def _digest(raw: Raw, parts: Mapping[str, Part]) -> str:
    """Hash of the pixels, tokens or numbers, labels and row numbers of each part, and of the tokenizer.

    Of what is computed (see Raw.made_by) the recipe stands for the values: they differ by rounding between machines.
    """
    digest = hashlib.sha256((raw.tokenizer.rules if raw.tokenizer else raw.made_by).encode())
    for name, part in parts.items():
        digest.update(f"{name} {raw.classes} {part.x.shape}".encode())
        content: tuple[np.ndarray, ...] = () if raw.made_by else (part.x,)
        for values in (*content, part.y.astype("<i8"), part.rows.astype("<i8")):
            digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()
