"""What lies in a folder: sub-folders, images, and everything else with the reason why it cannot be used."""

from __future__ import annotations

import os
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageFile

from unlearn_core.checks import InputError
from unlearn_core.datasets.reading import Words

LEFT_BEHIND = Words(
    "hidden file or folder, or what another system left behind",
    "hidden files and folders, and what other systems leave behind",
)
LOOPS = Words("link to a folder that was already visited", "links to folders that were already visited")
NO_IMAGES = Words("file that is no image", "files that are no images")
NO_FILES = Words(
    "thing that is neither file nor folder, such as a pipe or a link that leads nowhere",
    "things that are neither files nor folders, such as pipes and links that lead nowhere",
)
NOT_DECODED = Words("image in a format that is not decoded here", "images in formats that are not decoded here")

# Compared in lower case; names that begin with a dot need no mention.
JUNK = {
    "__macosx", "__pycache__", "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "lost+found", "$recycle.bin",
    "recycler", "system volume information", "network trash folder", "temporary items", "thumbs.db", "ehthumbs.db",
    "desktop.ini", "picasa.ini", "icon\r",
}  # fmt: skip
# Known to hold pictures, but Pillow cannot read them, or only through another program.
FOREIGN = set(
    ".eps .ps .svg .svgz .wmf .emf .heic .heif .jxl .dng .cr2 .cr3 .nef .arw .orf .rw2 .exr .hdr .dcm".split()
)
NOT_STILL = {"EPS", "IPTC", "MPEG"}  # EPS is drawn by Ghostscript, the others hold no picture that Pillow reads
WEAK = {"CUR", "DIB", "GBR", "MCIDAS", "PCX", "XBM"}  # their marks are such that other files begin with them, too

# What Pillow raises on damaged files, by format; SyntaxError stands for broken PNG chunks.
DAMAGE = (
    OSError, SyntaxError, ValueError, TypeError, AttributeError, AssertionError, LookupError, EOFError, ArithmeticError,
    RuntimeError, MemoryError, struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


class Stray(NamedTuple):
    """Something that is not used."""

    name: str
    why: Words
    images: int = 0  # how many image files this is


class Entry(NamedTuple):
    """A file or folder by its name."""

    name: str
    path: str
    why: Words | None = None  # it cannot be used; None for folders and images
    is_folder: bool = False


class Contents(NamedTuple):
    """Paths relative to some root, in order."""

    folders: list[str]
    images: list[str]
    strays: list[Stray]


@cache
def formats() -> tuple[str, ...]:
    """Pillow's names of all formats of still images that it decodes by itself, the usual ones first."""
    Image.init()
    stubs = {name for name, (cls, _) in Image.OPEN.items() if _is_stub(cls)}
    known = [name for name in Image.OPEN if name not in stubs | NOT_STILL]
    return tuple(sorted(known, key=lambda name: name not in ("PNG", "JPEG")))


def _is_stub(factory: object) -> bool:
    return isinstance(factory, type) and issubclass(factory, ImageFile.StubImageFile)


@cache
def suffixes() -> frozenset[str]:
    """Suffixes in lower case that Pillow registers for these formats."""
    decoded = set(formats())
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in decoded)


@cache
def marked_formats() -> tuple[str, ...]:
    """The formats that begin with a mark, so that no other file is taken for one of them."""
    return tuple(name for name in formats() if name not in WEAK and Image.OPEN[name][1] is not None)


def printable(name: str) -> str:
    """`name` in one line of valid text: names of files may be any bytes."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def contents(root: Path, place: str = "") -> Contents:
    """What lies directly in root/place."""
    found = Contents([], [], [])
    above = {_identity(root), _identity(root / place)}
    for entry in entries(root / place):
        name = f"{place}/{entry.name}" if place else entry.name
        _sort_in(found, root, name, entry, above)
    return found


def walk(root: Path, place: str) -> Contents:
    """All that lies in root/place and in its sub-folders, each of which is visited once whatever links there are.

    Images are in the order of the parts of their paths.
    """
    found, waiting = Contents([], [], []), [place]
    visited = {_identity(root), _identity(root / place), _identity((root / place).parent)}
    while waiting:
        here = waiting.pop()
        before = len(found.folders)
        for entry in entries(root / here):
            _sort_in(found, root, f"{here}/{entry.name}", entry, visited)
        new = found.folders[before:]
        visited |= {_identity(root / folder) for folder in new}
        waiting += reversed(new)
    found.images.sort(key=lambda name: name.split("/"))
    return found


def _sort_in(found: Contents, root: Path, name: str, entry: Entry, visited: set[tuple[int, int]]) -> None:
    if entry.why:
        images = _images_at(root / name, entry.why)
        inside = f" with {images:,} image{'s' * (images != 1)}" if images and (root / name).is_dir() else ""
        found.strays.append(Stray(f"{printable(name)}{inside}", entry.why, images))
    elif not entry.is_folder:
        found.images.append(name)
    elif _identity(root / name) in visited:
        found.strays.append(Stray(printable(name), LOOPS))
    else:
        found.folders.append(name)


def entries(folder: Path) -> Iterator[Entry]:
    """What lies directly in `folder`, by name; raises InputError for what is to be an image and cannot be opened."""
    try:
        with os.scandir(folder) as listed:
            found = sorted(listed, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed ({error.strerror})") from None
    for entry in found:
        yield _entry(entry)


def _entry(entry: os.DirEntry[str]) -> Entry:
    if is_left_behind(entry.name):
        return Entry(entry.name, entry.path, LEFT_BEHIND)
    suffix = os.path.splitext(entry.name)[1].lower()
    try:
        mode = entry.stat().st_mode
    except OSError as error:  # a link that leads nowhere, or to itself
        if suffix in suffixes():
            raise InputError(f"{entry.path}: not a readable image ({error.strerror}); restore or remove it") from None
        return Entry(entry.name, entry.path, NO_FILES)
    if stat.S_ISDIR(mode):
        return Entry(entry.name, entry.path, is_folder=True)
    if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
        return Entry(entry.name, entry.path, NO_FILES)
    if suffix in suffixes():
        return Entry(entry.name, entry.path)
    if suffix in FOREIGN:
        return Entry(entry.name, entry.path, NOT_DECODED)
    return Entry(entry.name, entry.path, None if is_image(entry.path) else NO_IMAGES)


def is_left_behind(name: str) -> bool:
    """Whether a name belongs to what systems and tools leave behind: hidden files, thumbnails, archives' extras."""
    return name.startswith(".") or name.lower() in JUNK


def is_image(path: str) -> bool:
    """Whether a file is an image by its first bytes, whatever it is called."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Image.open(path, formats=marked_formats()).close()
        return True
    except PermissionError:
        raise InputError(f"{path}: may not be read; change its permissions, or remove it") from None
    except Image.DecompressionBombError:
        return True  # refused when it is read
    except DAMAGE:
        return False


def images_in(folder: Path) -> int:
    """How many image files lie in `folder` and below, by their names; links are not followed."""
    names = (name for _, _, files in os.walk(folder) for name in files)
    return sum(_is_named_image(name) for name in names)


def _is_named_image(name: str) -> bool:
    """`._x.png` is what macOS keeps about x.png, not an image."""
    return not name.startswith("._") and os.path.splitext(name)[1].lower() in suffixes() | FOREIGN


def _images_at(path: Path, why: Words) -> int:
    if why == LEFT_BEHIND:
        if path.is_symlink():  # to anywhere
            return 0
        return images_in(path) if path.is_dir() else int(path.is_file() and _is_named_image(path.name))
    return int(why == NOT_DECODED)


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino
