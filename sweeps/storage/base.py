"""What a kind of storage can do: the one protocol behind which folders and object stores look the same.

`folders.at(path)` gives the storage of a file or folder, whichever kind it is. Another kind of storage is another
class with these methods, and a line in `folders`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

PART = ".jsonl"  # how names of files with records end


class Folder(Protocol):
    """A file or folder, wherever it is: a `pathlib.Path`, or an `S3Path` with the same few methods."""

    @property
    def name(self) -> str: ...

    @property
    def parent(self) -> Folder: ...

    def __truediv__(self, name: str, /) -> Folder: ...

    def __hash__(self) -> int: ...

    def exists(self) -> bool: ...

    def read_bytes(self) -> bytes: ...

    def read_text(self) -> str: ...


class Seen(NamedTuple):
    """A lease file as it was found.

    Attributes:
        data: what it holds.
        dated: its last sign of life, in seconds by the clock of its storage.
        tag: its version, where the storage has versions.
        now: the time, in seconds by the same clock, where the storage says it together with the content.
    """

    data: bytes
    dated: float
    tag: str = ""
    now: float | None = None


class Lines(Protocol):
    """Writes lines into a folder, beside other writers and never into a file of theirs."""

    def append(self, line: bytes) -> None:
        """Add a line, which survives a crash of the machine once this returns.

        Raises:
            StorageError: if it cannot be written.
        """


class Storage(Protocol):
    """What can be done with one file or folder.

    Raises:
        StorageError: in every method, where the storage fails; it names the file and what to do.
    """

    # the name itself

    def resolved(self, option: str) -> Folder:
        """The absolute folder, or the URL.

        Args:
            option: What the user calls it, such as `--out`.

        Raises:
            InputError: if this can be no URL of a folder. The message does not repeat it: it may hold a password.
        """

    @property
    def local_copy(self) -> Path:
        """The folder of this machine that shows the same files: the folder itself, if it is here."""

    # a file

    def write(self, data: bytes, *, durable: bool = True) -> None:
        """Write a whole file in one step: readers see the one before or this one.

        Args:
            data: Its new content.
            durable: False is quicker, and a crash may then cut the file short.
        """

    def remove(self) -> None:
        """Delete the file, if it is there."""

    # a folder

    def make_folder(self) -> None:
        """Create the folder, where folders have to be."""

    def unwritable(self) -> str | None:
        """None if files can be made in the folder, which is created; otherwise why not."""

    def check_room(self) -> None:
        """Fail before hours of work rather than after them.

        Raises:
            StorageError: if hardly anything more fits.
        """

    def files(self, suffix: str = "", *, levels: int = 1) -> list[tuple[str, int]]:
        """The files in the folder, in order of their names.

        Args:
            suffix: How their names end.
            levels: 1 for those in the folder itself, 2 for those in its folders.

        Returns:
            Names, relative to the folder, and sizes in bytes.
        """

    def contents(self, names: list[str]) -> Iterator[tuple[str, bytes]]:
        """Read files of the folder.

        Args:
            names: Relative to it.

        Returns:
            Name and content of each one that is still there.
        """

    def lines(self) -> Lines:
        """A writer of lines into the folder."""

    # a folder that is written as a whole

    def has_folder(self, last: str) -> bool:
        """Whether there is something to read.

        Args:
            last: Name of the file that is written last.
        """

    def file_name(self, name: str, checksum: str) -> str:
        """What a file of the folder is called, so that no two writers mix their files.

        Args:
            name: What it is called where folders appear as a whole.
            checksum: Of its content, in hex.
        """

    def write_folder(self, files: Mapping[str, bytes]) -> None:
        """Make a folder of these files; what killed writers of the same one left behind is cleared away.

        Args:
            files: Content by name, in the order in which they are written.

        Raises:
            StorageError: if it cannot be written, or there is one already where folders appear as a whole.
        """

    def discard_folder(self) -> None:
        """Delete the folder with all that is in it, where it would be in the way of the next one."""

    # a lease

    def create(self, data: bytes) -> bool:
        """Make the file, unless there is one.

        Returns:
            Whether it was made now, by this process and no other.
        """

    def look(self) -> Seen | None:
        """The file as it is now; None if there is none."""

    def age(self, seen: Seen) -> float:
        """Seconds since its last sign of life, by the clock of its storage alone: no two machines need agree."""

    def touch(self, data: bytes) -> bool:
        """Date the file now, if it still holds these data.

        Returns:
            Whether it does.
        """

    def clear(self, seen: Seen, expired: Callable[[float], bool]) -> None:
        """Take the file away, unless it has changed since it was looked at.

        Args:
            seen: How it looked.
            expired: Whether a file of that age, in seconds, was left by a process that is no more.
        """


def part_name(start: int) -> str:
    """A name for a new file with records, whose first line is number `start` of its folder."""
    return f"{start:08d}-{uuid.uuid4().hex}{PART}"
