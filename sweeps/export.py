"""One archive of a sweep's results, to keep, to publish or to send."""

from __future__ import annotations

import tarfile
from pathlib import Path

from sweeps.compaction import compact
from sweeps.manifest import read_manifest
from unlearn_core.checks import InputError

CONTENT = ("sweep.json", "records.parquet", "report")
"""Configuration with versions and machine, results, and report. Models and logs stay behind."""


def export(sweep_dir: Path, target: Path | None = None) -> Path:
    """Write the archive (gzip-compressed tar) of the sweep in `sweep_dir`; returns its path.

    The records are compacted first, so that an unfinished sweep exports what is there. Raises InputError if there is no
    sweep, no record, or the target exists or has no folder.
    """
    read_manifest(sweep_dir)
    path = target or sweep_dir.with_name(f"{sweep_dir.resolve().name}.tar.gz")
    if not path.parent.is_dir():
        raise InputError(f"--to {path} is in a folder that does not exist; make it, or name another file")
    if path.exists():
        raise InputError(f"--to {path} exists already; name another file")
    if compact(sweep_dir) is None:
        raise InputError(f"{sweep_dir} holds no finished trial yet; export it later")
    name = sweep_dir.resolve().name
    temporary = path.with_name(f".{path.name}.part")
    try:
        with tarfile.open(temporary, "w:gz") as archive:
            for part in CONTENT:
                if (sweep_dir / part).exists():
                    archive.add(sweep_dir / part, arcname=f"{name}/{part}", filter=_anonymous)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the name of the user."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
