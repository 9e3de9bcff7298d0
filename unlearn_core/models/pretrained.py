"""Pretrained weights in local safetensors files; nothing is ever fetched."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from unlearn_core.checks import InputError

WEIGHTS = "model.safetensors"


def snapshot(path: str) -> Path:
    """The folder `path`, or its snapshot if it is a repository in a hub cache (`models--NAME`, `datasets--NAME`)."""
    folder = Path(path).expanduser()
    reference = folder / "refs" / "main"
    return folder / "snapshots" / reference.read_text().strip() if reference.is_file() else folder


def checkpoint_folder(path: str, setting: str, file: str) -> Path:
    """The folder that holds `file`: `path` itself, or its snapshot.

    Args:
        path: A folder, or a model's folder in a hub cache.
        setting: What the user called the path.
        file: Name of the file.

    Raises:
        InputError: If there is no such file.
    """
    folder = snapshot(path)
    if not (folder / file).is_file():
        raise InputError(f"{setting} must be a folder with {file}, but {folder.absolute()} has none (none is fetched)")
    return folder


def file_digest(file: Path) -> str:
    """16 hex digits that identify the content of a file; read again only if it has changed since."""
    state = file.stat()
    return _file_digest(file, state.st_size, state.st_mtime_ns)


@lru_cache
def _file_digest(file: Path, size: int, changed_ns: int) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()[:16]


@dataclass(frozen=True)
class Stored:
    """Some of the tensors in a file, by the beginning of their names; read one at a time, when asked for."""

    file: Path
    start: str

    def tensor(self, name: str) -> Tensor:
        """The tensor called `start` + `name`, with or without the prefix `transformer.` of checkpoints with a head."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.file, framework="pt") as tensors:
                wanted = self.start + name
                known = set(tensors.keys())
                for key in (wanted, f"transformer.{wanted}"):
                    if key in known:
                        return tensors.get_tensor(key)
        except (OSError, SafetensorError) as problem:
            raise InputError(f"pretrained: {self.file} cannot be read ({problem})") from None
        raise InputError(f"pretrained: {self.file} has no tensor {wanted}; is it a GPT-2 with as many layers?")
