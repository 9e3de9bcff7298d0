"""A place in S3 or in anything that speaks its API: objects appear whole or not at all; nothing is appended."""

from __future__ import annotations

import contextlib
import errno
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from sweeps.schema.line_files import first_line
from sweeps.storage.base import PART, Seen, part_name
from sweeps.storage.errors import StorageError
from unlearn_core.checks import InputError

URL = re.compile(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[\w=+-][\w.=+-]*)*", re.ASCII)
LOCAL_COPIES = Path("results") / "s3"
PATIENCE = {"connect_timeout": 5, "read_timeout": 60}  # seconds
LOST_RACE = ("PreconditionFailed", "ConditionalRequestConflict")


@dataclass(frozen=True)
class S3Path:
    """An object or a prefix, such as `s3://bucket/prefix`, with those methods of `Path` that its readers need.

    Holds no credentials: every process finds its own in the environment, a profile or the role of its machine.
    """

    url: str

    def __truediv__(self, name: str) -> S3Path:
        return S3Path(f"{self.url}/{name}")

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]

    @property
    def parent(self) -> S3Path:
        return S3Path(self.url.rpartition("/")[0])

    def exists(self) -> bool:
        with asked(self):
            return bool(s3().exists(self.url))

    def read_bytes(self) -> bytes:
        """Raises FileNotFoundError."""
        with asked(self):
            return bytes(s3().cat_file(self.url))

    def read_text(self) -> str:
        return self.read_bytes().decode()


def s3() -> Any:
    """The object store's filesystem, one per process. Listings are never reused: other machines write too."""
    import fsspec

    try:
        return fsspec.filesystem("s3", use_listings_cache=False, config_kwargs=PATIENCE)
    except ImportError:
        raise InputError("places in s3:// need the package s3fs: install this project with its extra `s3`") from None


@contextlib.contextmanager
def asked(where: S3Path) -> Iterator[None]:
    """Turns the errors of an object store into StorageError, but for FileNotFoundError and FileExistsError."""
    try:
        yield
    except (FileNotFoundError, FileExistsError, StorageError, InputError):
        raise
    except Exception as problem:  # those of the client libraries have no common base
        reason = str(problem).strip().partition("\n")[0] or type(problem).__name__
        number = errno.EACCES if isinstance(problem, PermissionError) else getattr(problem, "errno", None)
        why = f"{where} cannot be used now: {reason}; check bucket, credentials and network"
        raise StorageError(why, number) from problem


@contextlib.contextmanager
def put_to(where: S3Path) -> Iterator[None]:
    """The same for writing, where a bucket that is missing is a StorageError as well."""
    try:
        with asked(where):
            yield
    except StorageError:
        raise
    except OSError as problem:
        raise StorageError(f"{where} cannot be written: {problem}", problem.errno) from problem


@contextlib.contextmanager
def conditional() -> Iterator[None]:
    """A write whose condition failed, because another process was faster, is a FileExistsError."""
    try:
        yield
    except OSError as problem:
        answer: Any = getattr(problem.__cause__, "response", None) or {}
        if answer.get("Error", {}).get("Code") in LOST_RACE:
            raise FileExistsError(str(problem)) from problem
        raise


@dataclass(frozen=True)
class S3Storage:
    """One object, or all below one prefix; satisfies `base.Storage`."""

    path: S3Path

    def resolved(self, option: str) -> S3Path:
        if not URL.fullmatch(self.path.url):  # is not repeated: what does not belong there may be a password
            raise InputError(
                f"{option} must be a folder or s3://BUCKET/PREFIX made of letters, digits and _.=+-; "
                "keys and passwords belong in the environment or in ~/.aws"
            )
        return self.path

    @property
    def local_copy(self) -> Path:
        return LOCAL_COPIES.resolve() / self._key

    @property
    def _key(self) -> str:
        """Bucket and prefix."""
        return self.path.url.partition("://")[2]

    # an object

    def write(self, data: bytes, *, durable: bool = True) -> None:
        with put_to(self.path):
            s3().pipe_file(self.path.url, data)

    def remove(self) -> None:
        with asked(self.path), contextlib.suppress(FileNotFoundError):
            s3().rm_file(self.path.url)

    # a prefix

    def make_folder(self) -> None:
        """There are none."""

    def unwritable(self) -> str | None:
        probe = S3Storage(self.path / ".probe")
        try:
            probe.write(b"")
            probe.remove()
        except OSError as problem:
            return problem.strerror or str(problem)
        return None

    def check_room(self) -> None:
        """There is room without end."""

    def files(self, suffix: str = "", *, levels: int = 1) -> list[tuple[str, int]]:
        with asked(self.path):
            objects = s3().find(self.path.url, detail=True)  # flat: a thousand names per request
        start = len(self._key) + 1
        names = ((key[start:], int(info["size"])) for key, info in objects.items())
        return sorted((name, size) for name, size in names if name.endswith(suffix) and name.count("/") == levels - 1)

    def contents(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        with asked(self.path):
            found = s3().cat([f"{self.path.url}/{name}" for name in names], on_error="return") if names else {}
        start = len(self._key) + 1
        for key, data in found.items():
            with asked(self.path), contextlib.suppress(FileNotFoundError):
                if isinstance(data, BaseException):
                    raise data
                yield key[start:], data

    def lines(self) -> S3Lines:
        return S3Lines(self)

    # objects that belong together: without the last one there is nothing to read

    def has_folder(self, last: str) -> bool:
        return (self.path / last).exists()

    def file_name(self, name: str, checksum: str) -> str:
        """Two writers may come in between each other, and never share a name."""
        stem, dot, end = name.partition(".")
        return f"{stem}-{int(checksum, 16):064x}{dot}{end}"

    def write_folder(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            S3Storage(self.path / name).write(data)

    def discard_folder(self) -> None:
        """What is damaged is in nobody's way, and may be whole before it is gone."""

    # a lease

    def create(self, data: bytes) -> bool:
        with put_to(self.path), contextlib.suppress(FileExistsError), conditional():
            s3().pipe_file(self.path.url, data, mode="create")
            return True
        return False

    def look(self) -> Seen | None:
        try:
            with asked(self.path):
                data, answer = s3().cat_file(self.path.url), self.head()
        except FileNotFoundError:
            return None
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        return Seen(data, answer["LastModified"].timestamp(), answer["ETag"], now.timestamp())

    def head(self) -> dict[str, Any]:
        """What the object store says of the object: its date and version, and the time there."""
        bucket, _, key = self._key.partition("/")
        return dict(s3().call_s3("head_object", Bucket=bucket, Key=key))

    def age(self, seen: Seen) -> float:
        return (seen.dated if seen.now is None else seen.now) - seen.dated

    def touch(self, data: bytes) -> bool:
        seen = self.look()
        if seen is None or seen.data != data:
            return False
        with contextlib.suppress(FileExistsError), asked(self.path), conditional():
            s3().pipe_file(self.path.url, data, IfMatch=seen.tag)
            return True
        return False

    def clear(self, seen: Seen, expired: Callable[[float], bool]) -> None:
        with put_to(self.path), contextlib.suppress(FileExistsError, FileNotFoundError), conditional():
            s3().pipe_file(self.path.url, b"", IfMatch=seen.tag)  # of several processes, one gets this far
            self.remove()


class S3Lines:
    """An object for every line; satisfies `base.Lines`."""

    def __init__(self, folder: S3Storage) -> None:
        self._folder = folder
        self._lines: int | None = None  # of the folder; not counted yet

    def append(self, line: bytes) -> None:
        if self._lines is None:
            ends = (first_line(name) + 1 for name, _ in self._folder.files(PART))
            self._lines = max(ends, default=0)
        S3Storage(self._folder.path / part_name(self._lines)).write(line)
        self._lines += 1
