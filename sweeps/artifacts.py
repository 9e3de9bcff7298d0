"""Content-addressed artifacts: made once, shared by every sweep that uses the same store, rebuilt when damaged.

`store/<kind>/<hash>/` holds `tensors.safetensors` and `meta.json`; the hash is that of the recipe that makes it. Both
are written under a temporary name and renamed, and checked against a checksum when read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load, save
from torch import Tensor

log = logging.getLogger(__name__)


class Artifact(NamedTuple):
    """Named tensors (on the CPU) and a JSON object."""

    tensors: dict[str, Tensor]
    meta: dict[str, Any]


def digest(content: Any) -> str:
    """16 hex digits that identify a JSON value; equal values give equal digests on every machine."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


class ArtifactStore:
    """Artifacts under one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, kind: str, recipe: Mapping[str, Any], make: Callable[[], Artifact]) -> Artifact:
        """The artifact made by `recipe`: read if it is there and sound, else made and kept."""
        folder = self.root / kind / digest(recipe)
        found = read(folder)
        if found is not None:
            return found
        made = make()
        contiguous = {k: v.detach().cpu().contiguous() for k, v in made.tensors.items()}
        write(folder, Artifact(contiguous, made.meta), recipe)
        return Artifact(contiguous, made.meta)


def read(folder: Path) -> Artifact | None:
    """The artifact in `folder`, or None if there is none or it is damaged (which is logged and cleared away)."""
    if not folder.exists():
        return None
    try:
        meta = json.loads((folder / "meta.json").read_bytes())
        blob = (folder / "tensors.safetensors").read_bytes()
        if meta["sha256"] == _checksum(blob, meta["recipe"], meta["content"]):
            return Artifact(load(blob), meta["content"])
        why = "checksum differs"
    except FileNotFoundError as problem:
        why = f"{Path(problem.filename).name} is missing"
    except (ValueError, LookupError, TypeError):
        why = "meta.json cannot be read"
    _discard(folder, why)
    return None


def _checksum(blob: bytes, recipe: Any, content: Any) -> str:
    return hashlib.sha256(blob + json.dumps([recipe, content], sort_keys=True).encode()).hexdigest()


def _discard(folder: Path, why: str) -> None:
    log.warning("artifact %s is damaged (%s); it is made again", folder, why)
    shutil.rmtree(folder, ignore_errors=True)


def write(folder: Path, artifact: Artifact, recipe: Mapping[str, Any]) -> None:
    """Put `artifact` into `folder` in one step; if another process was faster, its copy stays."""
    blob = save(artifact.tensors)
    meta = {"sha256": _checksum(blob, recipe, artifact.meta), "recipe": recipe, "content": artifact.meta}
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".{folder.name}-{uuid.uuid4().hex[:8]}")
    temporary.mkdir()
    try:
        for name, data in (("tensors.safetensors", blob), ("meta.json", json.dumps(meta, indent=1).encode())):
            with open(temporary / name, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        os.rename(temporary, folder)
    except OSError:
        if read(folder) is None:
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
