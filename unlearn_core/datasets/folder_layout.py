"""Which folders are the parts and the classes of a folder of images."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from unlearn_core.checks import InputError
from unlearn_core.datasets.folder_entries import Stray, contents, images_in, printable
from unlearn_core.datasets.reading import EXAMPLES, Note, Words, note

OUTSIDE = Words("image outside of the class folders", "images outside of the class folders")
UNUSED = Words("folder beside the parts that are used", "folders beside the parts that are used")
ALIKE = Words(
    "group of classes whose names are alike and may be meant to be one",
    "groups of classes whose names are alike and may be meant to be one",
)
ROLES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("val", "valid", "validation", "dev", "eval", "evaluation", "heldout", "holdout"),
}
ADDED = ("", "set", "data", "images", "split", "part")  # so that `Test-Set` is a test part, as is `test1`


class ClassFolder(NamedTuple):
    """A folder of images of one class."""

    name: str  # composed (NFC), so that one class has one name on all file systems
    place: str  # relative to the root


class Layout(NamedTuple):
    """train: all class folders if there is no held-out part; then some of their rows are to be held out.

    strays: what lies in the folders above the classes and is not used.
    """

    train: list[ClassFolder]
    held_out: list[ClassFolder] | None
    strays: list[Stray]
    warnings: tuple[Note, ...]


class Part(NamedTuple):
    """The class folders of one part of the data: training, held-out, or all."""

    classes: list[ClassFolder]
    strays: list[Stray]


def find_layout(root: Path) -> Layout:
    """Raises InputError if it is not plain which folders are parts and which are classes."""
    top = contents(root)
    by_role = {role: [name for name in top.folders if role_of(name) == role] for role in ROLES}
    train = [name for name in by_role["train"] if contents(root, name).folders]
    others = by_role["test"] + by_role["validation"]
    if not train and not others:
        part = class_folders(root, "")
        return Layout(part.classes, None, part.strays, alike(part.classes))
    if not train:
        raise InputError(
            f"{root}: {_listed(others)} is the name of a part, but no folder train holds class folders; move the "
            f"training images to train/CLASS, or give a class another name"
        )
    if not others:
        raise InputError(
            f"{root}: {train[0]} holds class folders, but no folder test or val lies beside it; give path "
            f"{root / train[0]} to have some of its images held out"
        )
    held_out = _held_out(root, by_role)
    return _two_parts(root, _only(root, by_role["train"], "training"), held_out)


def role_of(name: str) -> str | None:
    """The role of a part with that name, whatever its case and number, or None."""
    plain = re.sub(r"[\W\d_]", "", unicodedata.normalize("NFKC", name).casefold())
    for role, names in ROLES.items():
        if any(plain == known + added for known in names for added in ADDED):
            return role
    return None


def _held_out(root: Path, by_role: dict[str, list[str]]) -> str:
    """The test part, else the validation part: the first kind that has class folders."""
    for role in ("test", "validation"):
        usable = [name for name in by_role[role] if contents(root, name).folders]
        if usable:
            return _only(root, usable, "held-out")
    first = (by_role["test"] + by_role["validation"])[0]
    raise InputError(f"{root / first}: no class folders with images; move its images to {first}/CLASS")


def _only(root: Path, names: Sequence[str], what: str) -> str:
    if len(names) > 1:
        raise InputError(f"{root}: {_listed(names)} could each be the {what} part; keep one of them")
    return names[0]


def _two_parts(root: Path, train: str, held_out: str) -> Layout:
    top = contents(root)
    first, second = class_folders(root, train), class_folders(root, held_out, least=1)
    _check_known(root, first.classes, second.classes, train, held_out)
    unused = [name for name in top.folders if name not in (train, held_out)]
    beside = [_unused(root, name, held_out) for name in unused]
    strays = [*_outside(top.images, top.strays), *beside, *first.strays, *second.strays]
    return Layout(first.classes, second.classes, strays, alike(first.classes))


def _unused(root: Path, name: str, held_out: str) -> Stray:
    count = images_in(root / name)
    rest = f"not used, because {held_out} is held out"
    why = Words(f"folder that is {rest}", f"folders that are {rest}") if role_of(name) else UNUSED
    return Stray(f"{printable(name)} with {count:,} images", why, count)


def class_folders(root: Path, part: str, *, least: int = 2) -> Part:
    """Classes of a part, in the order of their indices; InputError if there are fewer than `least`."""
    found = contents(root, part)
    if len(found.folders) < least:
        raise InputError(f"{root / part}: {_too_few(root, part, found.folders)}")
    classes = [ClassFolder(_class_name(place), place) for place in found.folders]
    by_name: dict[str, ClassFolder] = {}
    for folder in classes:
        other = by_name.setdefault(folder.name, folder)
        if other is not folder:
            raise InputError(
                f"{root / part}: two folders have the name {folder.name}, once composed and once decomposed "
                f"({other.place!a}, {folder.place!a}); join or rename them"
            )
    return Part(in_order(classes), _outside(found.images, found.strays))


def _class_name(place: str) -> str:
    return printable(unicodedata.normalize("NFC", place.rpartition("/")[2]))


def _too_few(root: Path, part: str, folders: Sequence[str]) -> str:
    """What is wrong, and the folder that was probably meant."""
    if not folders:
        return "expected a folder of images for each of two or more classes, but found no folders"
    inner = folders[0]
    while len(below := contents(root, inner).folders) == 1:
        inner = below[0]
    meant = f"; move what is in it up into {root / part}" if part else f"; give path {root / inner}" if below else ""
    return (
        f"expected a folder of images for each of two or more classes, but found only the folder "
        f"{printable(folders[0].rpartition('/')[2])}{meant}"
    )


def in_order(classes: Iterable[ClassFolder]) -> list[ClassFolder]:
    """By number if all names are whole numbers, else by name."""
    ordered = sorted(classes)
    if all(is_number(folder.name) for folder in ordered):
        ordered.sort(key=lambda folder: int(folder.name))
    return ordered


def is_number(name: str) -> bool:
    """Whether a folder's name is a whole number, so that classes are ordered as numbers."""
    return re.fullmatch(r"-?[0-9]{1,18}", name) is not None


def alike(classes: Sequence[ClassFolder]) -> tuple[Note, ...]:
    """A warning on classes whose names differ in case, blanks or leading zeros alone."""
    groups: dict[str, list[str]] = {}
    for folder in classes:
        groups.setdefault(_key(folder.name), []).append(folder.name)
    pairs = [" and ".join(map(repr, names)) for names in groups.values() if len(names) > 1]
    return (note(ALIKE, pairs),) if pairs else ()


def _key(name: str) -> str:
    plain = unicodedata.normalize("NFKC", name).casefold().strip()
    return str(int(plain)) if is_number(plain) else plain


def _check_known(
    root: Path, known: Sequence[ClassFolder], found: Sequence[ClassFolder], train: str, held_out: str
) -> None:
    names = {folder.name for folder in known}
    unknown = [folder.name for folder in found if folder.name not in names]
    if not unknown:
        return
    near = {_key(folder.name): folder.name for folder in known}
    hints = [f"{name} is called {near[_key(name)]} there" for name in unknown if _key(name) in near]
    hint = f" ({_listed(hints)}; rename one of them)" if hints else ""
    raise InputError(f"{root / held_out}: classes {_listed(unknown)} do not occur in {root / train}{hint}")


def _outside(images: Iterable[str], strays: Iterable[Stray]) -> list[Stray]:
    return [*strays, *(Stray(printable(name), OUTSIDE, 1) for name in images)]


def _listed(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > 2 * EXAMPLES else ""
    return ", ".join(names[: 2 * EXAMPLES]) + more
