"""From a folder of images to arrays: which files are used for what, and what is to be said about them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unlearn_core.checks import InputError
from unlearn_core.datasets.folder_entries import Contents, Stray, printable, walk
from unlearn_core.datasets.folder_layout import ClassFolder, Layout, find_layout, role_of
from unlearn_core.datasets.picture_notes import file_warnings
from unlearn_core.datasets.pictures import Pictures, read_pictures
from unlearn_core.datasets.raw import Raw, stratified_order
from unlearn_core.datasets.reading import EXAMPLES, Note, Reading, Words, note

SPLIT_SEED = 0
LISTED = 12  # class folders that are listed one by one
DEEPER = Words(
    "image in a folder within a class folder, taken as part of the class",
    "images in folders within a class folder, taken as part of the class",
)


class Files(NamedTuple):
    """Image files of one part, class by class; names are relative to the root, labels (n,) index the classes."""

    names: list[str]
    labels: np.ndarray
    strays: list[Stray]
    deeper: list[str]
    used: list[tuple[str, int]]  # class folders and how many images each has


def read_folder(root: Path, *, size: int, held_out: float) -> Raw:
    """See ImageFolder; every defect raises InputError, before any image is read if it is one of the folders."""
    layout = find_layout(root)
    classes = [folder.name for folder in layout.train]
    first = _files(root, layout.train, classes)
    if layout.held_out is None:
        second = Files([], np.empty(0, np.int64), [], [], [])
        names, labels, count = _split(root, first, len(classes), held_out)
    else:
        second = _files(root, layout.held_out, classes)
        names, labels = first.names + second.names, np.concatenate([first.labels, second.labels])
        count = len(first.names)
    pictures = read_pictures(root, names, size)
    x, texts = pictures.pixels, [printable(name) for name in names]
    reading = Reading(
        rows_found=len(names) + sum(stray.images for stray in _strays(layout, first, second)),
        class_names=tuple(classes),
        used=used(first.used) + used(second.used),
        train_names=tuple(texts[:count]),
        test_names=tuple(texts[count:]),
        left_out=left_out(_strays(layout, first, second)),
        coerced=pictures.coerced,
        warnings=_warnings(layout, first, second, pictures, [classes[label] for label in labels]),
    )
    return Raw(x[:count], labels[:count], x[count:], labels[count:], len(classes), reading=reading)


def _files(root: Path, folders: Sequence[ClassFolder], classes: Sequence[str]) -> Files:
    """In the order of class folders and, within each, of paths."""
    names, labels, strays, deeper, counts = [], [], [], [], []
    for folder in folders:
        found = walk(root, folder.place)
        _check_class_folder(root / folder.place, found)
        names += found.images
        labels += [classes.index(folder.name)] * len(found.images)
        strays += found.strays
        level = folder.place.count("/") + 1
        deeper += [printable(name) for name in found.images if name.count("/") > level]
        counts.append((printable(folder.place), len(found.images)))
    return Files(names, np.array(labels, dtype=np.int64), strays, deeper, counts)


def _check_class_folder(place: Path, found: Contents) -> None:
    below = [name.rpartition("/")[2] for name in found.folders]
    parts = [name for name in below if role_of(name) in ("test", "validation")]
    if parts:
        raise InputError(
            f"{place}: holds a folder {parts[0]}, which is the name of a part, where images of one class should be; "
            f"give path {place}, or move the parts above the classes as in train/CLASS and test/CLASS"
        )
    if not found.images:
        others = f" (but {'; '.join(map(str, left_out(found.strays)))})" if found.strays else ""
        raise InputError(f"{place}: no images in this class folder{others}; add some, or remove the folder")


def _split(root: Path, files: Files, classes: int, held_out: float) -> tuple[list[str], np.ndarray, int]:
    """Names and labels of all rows, those for training first, and how many these are."""
    total = len(files.names)
    if total == classes:
        raise InputError(f"{root}: one image per class leaves none to hold out")
    # The order starts with one image of each class, so that no class is held out as a whole.
    count = min(max(classes, round((1 - held_out) * total)), total - 1)
    order = stratified_order(files.labels, seed=SPLIT_SEED)
    rows = np.concatenate([np.sort(order[:count]), np.sort(order[count:])])
    return [files.names[row] for row in rows], files.labels[rows], count


def _strays(layout: Layout, *files: Files) -> list[Stray]:
    return [*layout.strays, *(stray for part in files for stray in part.strays)]


def left_out(strays: Iterable[Stray]) -> tuple[Note, ...]:
    """One note per reason."""
    by_reason: dict[Words, list[Stray]] = {}
    for stray in strays:
        by_reason.setdefault(stray.why, []).append(stray)
    return tuple(
        Note(
            text=why.of(len(group)),
            count=len(group),
            examples=tuple(stray.name for stray in group[:EXAMPLES]),
            rows=sum(stray.images for stray in group),
        )
        for why, group in by_reason.items()
    )


def used(counts: Sequence[tuple[str, int]]) -> tuple[str, ...]:
    """One text per class folder, or one for all if they are many."""
    if len(counts) <= LISTED:
        return tuple(f"{place}: {count:,} images" for place, count in counts)
    images = [count for _, count in counts]
    part = counts[0][0].rpartition("/")[0]
    where = f"{part}: " if part else ""
    each = f"{min(images):,} to {max(images):,}" if min(images) < max(images) else f"{images[0]:,}"
    return (f"{where}{sum(images):,} images in {len(counts)} class folders, {each} in each",)


def _warnings(
    layout: Layout, first: Files, second: Files, pictures: Pictures, classes: Sequence[str]
) -> tuple[Note, ...]:
    deeper = first.deeper + second.deeper
    held_out = [False] * len(first.names) + [True] * len(second.names)
    return (
        *layout.warnings,
        *((note(DEEPER, deeper),) if deeper else ()),
        *file_warnings(pictures, classes, held_out),
        *pictures.warnings,
    )
