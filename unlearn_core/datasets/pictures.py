"""Many image files as one array, and notes on what was changed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from unlearn_core.checks import InputError
from unlearn_core.datasets.folder_entries import printable
from unlearn_core.datasets.picture import DEPTHS, Picture, Traits, depth, read_picture
from unlearn_core.datasets.reading import Note, Words, note

DAMAGED = Words("file with damage that does not prevent reading", "files with damage that does not prevent reading")
LIMIT_FILES = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Pictures(NamedTuple):
    """pixels: (n, size, size, 3) uint8. traits: of each file. depths: bits in use per grey value, 8 for most."""

    pixels: np.ndarray
    traits: list[Traits]
    depths: list[int]
    coerced: tuple[Note, ...]
    warnings: tuple[Note, ...]


def read_pictures(root: Path, names: Sequence[str], size: int) -> Pictures:
    """All images root/name, cut and resized to size x size; every defect raises InputError naming the file."""
    _check_memory(root, len(names), size)
    pixels = np.empty((len(names), size, size, 3), np.uint8)
    deep: dict[int, Picture] = {}
    traits, depths, changes, doubts = [], [], _Told(), _Told()
    with _pillow_warnings() as said:
        for row, name in enumerate(names):
            picture = read_picture(root / name, size)
            if picture.pixels.ndim == 2:
                deep[row] = picture
            else:
                pixels[row] = picture.pixels
            traits.append(picture.traits)
            depths.append(depth(picture.top))
            changes.add(picture.changes, name)
            doubts.add(picture.doubts, name)
            if said:
                doubts.add([DAMAGED], f"{name} ({said[0].message})")
                said.clear()
    _check_colour_depth(root, names, traits, depths)
    scaled = _scale(pixels, deep, names)
    return Pictures(pixels, traits, depths, (*scaled, *changes.notes()), doubts.notes())


class _Told:
    """Which files some words are about."""

    def __init__(self) -> None:
        self.names: dict[Words, list[str]] = {}

    def add(self, words_of_one: Sequence[Words], name: str) -> None:
        for words in words_of_one:
            self.names.setdefault(words, []).append(printable(name))

    def notes(self) -> tuple[Note, ...]:
        return tuple(note(words, names) for words, names in self.names.items())


@contextmanager
def _pillow_warnings() -> Iterator[list[warnings.WarningMessage]]:
    """Collects what Pillow says; its warning of a very large image is an error, raised before any decoding."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)  # about code, not about files
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield said


def _scale(pixels: np.ndarray, deep: dict[int, Picture], names: Sequence[str]) -> Iterator[Note]:
    """Write the grey images of more than 8 bits into `pixels`, all by one scale, so that none becomes brighter."""
    whole = [row for row, picture in deep.items() if picture.traits.mode != "F"]
    floats = [row for row, picture in deep.items() if picture.traits.mode == "F"]
    limit = 2 ** depth(max((deep[row].top for row in whole), default=0)) - 1
    for rows, top, what in ((whole, limit, "more than 8 bits"), (floats, 1, "floats")):
        for row in rows:
            pixels[row] = np.rint(deep[row].pixels * (255 / top))[..., np.newaxis]
        if rows:
            rest = f"of {what}, scaled from 0 .. {top} to 0 .. 255 and rounded"
            yield note(Words(f"grey image {rest}", f"grey images {rest}"), [printable(names[row]) for row in rows])


def _check_colour_depth(root: Path, names: Sequence[str], traits: Sequence[Traits], depths: Sequence[int]) -> None:
    """Pillow keeps the upper 8 bits: few are left of values that use only the lower ones."""
    colour = [row for row, trait in enumerate(traits) if trait.is_deep_colour]
    most = max((depths[row] for row in colour), default=DEPTHS[-1])
    if most < DEPTHS[-1]:
        raise InputError(
            f"{root / names[colour[0]]}: all {len(colour):,} colour images of more than 8 bits have values of {most} "
            f"bits or fewer, of which {most - 8} would be left; save them with 8 bits"
        )


def _check_memory(root: Path, count: int, size: int) -> None:
    needed, there = count * size * size * 3, memory()
    if needed > there:
        raise InputError(
            f"{root}: {count:,} images of size {size} need {needed / 2**30:,.1f} GiB of memory, but this machine has "
            f"{there / 2**30:,.1f}; choose a smaller size, or fewer images"
        )


def memory() -> int:
    """Bytes that this process may use: the machine's, or the container's if that is less."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in LIMIT_FILES:
        try:
            limits.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # no container of that kind, or `max`
            continue
    return min(limits)
