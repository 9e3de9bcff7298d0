"""Content-addressed artifacts: made once, shared by every sweep that uses the same store, rebuilt when damaged.

`store/<kind>/<hash>/` holds `tensors.safetensors` and `meta.json`; the hash is that of the recipe that makes it. They
are checked against a checksum when they are read. On a disk both are written under a temporary name and renamed. In an
object store the tensors are named after their checksum and `meta.json` is written last: without it nothing is read.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from sweeps.schema.digest import digest
from sweeps.storage.base import Folder
from sweeps.storage.errors import StorageError
from sweeps.storage.folders import at, child
from sweeps.storage.leases import held
from sweeps.storage.memory_cache import GIB, Recent

READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTEMPTY)  # the last: damage that cannot be removed
TENSORS, META = "tensors.safetensors", "meta.json"
KEPT, KEPT_BYTES = 16, GIB  # artifacts that a read-only store could not take, in memory

log = logging.getLogger(__name__)


class Artifact(NamedTuple):
    """Named tensors (on the CPU) and a JSON object."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]


class ArtifactStore:
    """Artifacts under one folder. If it cannot be written it is still read, and new artifacts stay in memory."""

    def __init__(self, root: Folder) -> None:
        self.root = root
        self._unsaved: Recent[Artifact] = Recent(KEPT, KEPT_BYTES)

    def get(self, kind: str, recipe: Mapping[str, Any], make: Callable[[], Artifact]) -> Artifact:
        """The artifact of a recipe: read if it is there and sound, else made and kept.

        If several processes ask at once, one makes it and the others wait.

        Args:
            kind: Name of the folder with artifacts of its kind.
            recipe: Everything that its content depends on, as a JSON object.
            make: Makes it.

        Returns:
            The artifact, with tensors on the CPU.

        Raises:
            StorageError: if it cannot be kept for want of space.
        """
        folder = child(child(self.root, kind), digest(recipe))
        found = self._unsaved.get(folder) or read(folder)
        if found is not None:
            return found
        if not _make_parent(folder):
            return self._keep(folder, recipe, make())
        with held(folder.parent / f".{folder.name}.lease", lambda: _sound(folder)) as made_by_another:
            if made_by_another:
                return made_by_another
            return self._keep(folder, recipe, make())

    def tensors(self, recipe: Mapping[str, Any], make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
        """The tensors of a recipe for features, kept in the same way."""
        return self.get("features", recipe, lambda: Artifact(make(), {})).tensors

    def _keep(self, folder: Folder, recipe: Mapping[str, Any], made: Artifact) -> Artifact:
        contiguous = {k: v.detach().cpu().contiguous() for k, v in made.tensors.items()}
        artifact = Artifact(contiguous, made.meta)
        try:
            write(folder, artifact, recipe)
        except StorageError as problem:
            if problem.errno not in READ_ONLY:
                raise
            self._remember(folder, artifact)
        return artifact

    def _remember(self, folder: Folder, artifact: Artifact) -> None:
        if not self._unsaved:
            log.warning("artifact store %s cannot be written: what it lacks is made again by every process", self.root)
        self._unsaved.put(folder, artifact)


def _make_parent(folder: Folder) -> bool:
    """Whether the folder of this kind of artifacts is there; a store that cannot be written may lack it."""
    try:
        at(folder.parent).make_folder()
    except StorageError as problem:
        if problem.errno not in READ_ONLY:
            raise
        return False
    return True


def read(folder: Folder) -> Artifact | None:
    """The artifact in `folder`, or None if there is none or it is damaged (which is logged and cleared away)."""
    found = _content(folder)
    if isinstance(found, str):
        log.warning("artifact %s is damaged (%s); it is made again", folder, found)
        at(folder).discard_folder()
        return None
    return found


def _sound(folder: Folder) -> Artifact | None:
    found = _content(folder)
    return None if isinstance(found, str) else found


def _content(folder: Folder) -> Artifact | str | None:
    """The artifact, what is wrong with it, or None if there is none."""
    if not at(folder).has_folder(META):
        return None
    try:
        meta = json.loads((folder / META).read_bytes())
        blob = (folder / at(folder).file_name(TENSORS, meta["sha256"])).read_bytes()
        if meta["sha256"] == _checksum(blob, meta["recipe"], meta["content"]):
            return Artifact(load(blob), meta["content"])
        return "checksum differs"
    except FileNotFoundError as problem:
        return f"{Path(problem.filename or str(problem)).name} is missing"
    except (NotADirectoryError, IsADirectoryError, PermissionError) as problem:
        return f"{Path(problem.filename).name}: {problem.strerror}"
    except SafetensorError:
        return f"{TENSORS} cannot be read"
    except (ValueError, LookupError, TypeError, RecursionError):
        return f"{META} cannot be read"


def _checksum(blob: bytes, recipe: Any, content: Any) -> str:
    return hashlib.sha256(blob + json.dumps([recipe, content], sort_keys=True).encode()).hexdigest()


def write(folder: Folder, artifact: Artifact, recipe: Mapping[str, Any]) -> None:
    """Put an artifact into its folder in one step; if another process was faster, its copy stays.

    Raises:
        StorageError: If it cannot be written, and no other copy is there.
        OSError: If the disk fails in another way.
    """
    blob = save(artifact.tensors)
    checksum = _checksum(blob, recipe, artifact.meta)
    meta = {"sha256": checksum, "recipe": recipe, "content": artifact.meta}
    files = {at(folder).file_name(TENSORS, checksum): blob, META: json.dumps(meta, indent=1).encode()}
    try:
        at(folder).write_folder(files)
    except OSError:
        if read(folder) is None:
            raise
