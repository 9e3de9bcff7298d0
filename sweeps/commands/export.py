"""One archive of a sweep's results, to keep, to publish or to send."""

from __future__ import annotations

import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from sweeps.commands.look import folder_parser, show
from sweeps.storage.errors import writing
from sweeps.storage.folders import at
from sweeps.storage.manifest import read_manifest
from unlearn_core.checks import InputError

TABLE = "records.parquet"
CONTENT = ("sweep.json", TABLE, "report")
"""Configuration with versions and machine, results, and report. Models and logs stay behind."""


def main(words: Sequence[str] | None = None, prog: str = "unlearn export") -> int:
    """Run the verb; returns the exit code: 0 written, 1 storage fails, 2 bad input."""
    p = folder_parser(prog)
    p.add_argument("--to", type=Path, metavar="FILE", help="archive (default: DIR.tar.gz)")
    return show(p, words, lambda replica, given: [f"wrote {export(replica.dir, given.to)}"])


def export(sweep_dir: Path, target: Path | None = None) -> Path:
    """Write the archive (gzip-compressed tar) of the sweep in `sweep_dir`, which is only read.

    The table is made from the records as they are now, so that an unfinished sweep exports what is there.

    Args:
        sweep_dir: Folder of the sweep.
        target: The archive; beside the folder by default.

    Returns:
        Path of the archive.

    Raises:
        InputError: If there is no sweep or no record, or if the target exists or cannot be made.
        StorageError: If the disk is full.
    """
    from sweeps.storage.table import compact  # with pandas, which takes a while to load

    read_manifest(sweep_dir)
    path = target or sweep_dir.with_name(f"{sweep_dir.resolve().name}.tar.gz")
    if not path.parent.is_dir():
        raise InputError(f"--to {path} is in a folder that does not exist; make it, or name another file")
    if path.exists():
        raise InputError(f"--to {path} exists already; name another file")
    if problem := at(path.parent).unwritable():
        raise InputError(f"{path} cannot be written: {problem}; name a file in another folder with --to")
    with writing(path.parent), tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        table = Path(folder) / TABLE
        if compact(sweep_dir, table) is None:
            raise InputError(f"{sweep_dir} holds no finished trial yet; export it later")
        _pack(sweep_dir, table, Path(folder) / "archive").replace(path)
    return path


def _pack(sweep_dir: Path, table: Path, archive: Path) -> Path:
    name = sweep_dir.resolve().name
    with tarfile.open(archive, "w:gz") as packed:
        for part in CONTENT:
            for path, place in _files(table if part == TABLE else sweep_dir / part):
                packed.add(path, arcname=f"{name}/{part}/{place}".removesuffix("/."), recursive=False, filter=_plain)
    return archive


def _files(top: Path) -> list[tuple[Path, Path]]:
    """What is to be packed of a file or folder, and where it lies in it.

    A link is followed to what the user put there in its place, but one inside the folder must not lead out of it:
    that may be anything of theirs.
    """
    real = top.resolve()
    if top.is_symlink():
        print(f"warning: {top} leads to {real}" + ("" if real.exists() else ", which is left out"), file=sys.stderr)
    found = []
    for path in (real, *sorted(real.rglob("*"))) if real.exists() else ():
        end = path.resolve()
        if (end.is_file() and end.is_relative_to(real)) or (end.is_dir() and end == path):
            found.append((end, path.relative_to(real)))
        else:
            print(f"warning: {path} is no file of {top}; it is left out", file=sys.stderr)
    return found


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the name of the user."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member
