"""From what a user names to its storage: the only place that knows which kinds there are."""

from __future__ import annotations

from pathlib import Path

from sweeps.storage.base import Folder, Storage
from sweeps.storage.local import LocalStorage
from sweeps.storage.s3 import S3Path, S3Storage
from unlearn_core.checks import InputError


def folder_or_url(text: str) -> Folder:
    """The folder or URL that `text` names; `Storage.resolved` checks it."""
    return S3Path(text.rstrip("/")) if "://" in text else Path(text)


def is_folder(value: object) -> bool:
    """Whether it is what `folder_or_url` returns."""
    return isinstance(value, (Path, S3Path))


def at(place: Folder) -> Storage:
    """The storage of a file or folder."""
    if isinstance(place, S3Path):
        return S3Storage(place)
    if isinstance(place, Path):
        return LocalStorage(place)
    raise TypeError(f"{place!r} is neither a folder nor a place in an object store")


def on_this_machine(folder: Folder, option: str) -> Path:
    """The folder, which has to be on this machine.

    Args:
        folder: Any folder.
        option: What the user calls it, such as `--out`.

    Raises:
        InputError: if it is somewhere else.
    """
    if not isinstance(folder, Path):  # is not repeated: what it holds may be a password
        raise InputError(f"{option} must be a folder of this machine, not s3:// or another URL")
    return folder


def child(folder: Folder, name: str) -> Folder:
    """`folder / name` where the name may come from a configuration.

    Raises:
        ValueError: if that would lead elsewhere.
    """
    if not name or name in (".", "..") or set(name) & set("/\\\0"):
        raise ValueError(f"{name!r} is no name for a folder")
    return folder / name
