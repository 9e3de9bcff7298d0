"""Files as users have them: what is no file, too large or no UTF-8 is refused before anything is read."""

from __future__ import annotations

import stat
from pathlib import Path

from unlearn_core.checks import InputError

GIB = 2**30
MOST_SHARE = 0.5  # of the memory that is available, for what a file holds
UNKNOWN_MEMORY = 8 * GIB  # taken as available where the system does not say
PACKED = 200  # times its size on disk: no real data is packed so tightly
MOST_PACKED = GIB // 2  # bytes that a file packed so tightly may hold
LINES = 4  # bytes of memory per byte of a file, once its text is taken apart into lines
CELLS = 20  # and into the cells of a table
KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def regular_file(path: Path, hint: str = "") -> Path:
    """`path` itself; InputError, with `hint` at its end, if it is missing or no file that can be read to its end."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{path.absolute()}: there is no such file{hint}") from None
    except (OSError, ValueError) as problem:  # ValueError: a zero character in the name
        raise InputError(f"{path.absolute()}: cannot be read ({problem}){hint}") from None
    kinds = [kind for matches, kind in KINDS if matches(mode)]
    if kinds:
        raise InputError(f"{path.absolute()} is {kinds[0]}, not a file{hint}")
    return path


def check_size(path: Path, size: int) -> None:
    """InputError if `size`, the bytes that the file becomes in memory, are too many, or suspiciously many."""
    most = round(MOST_SHARE * available_memory())
    if size > most:
        raise InputError(
            f"{path}: holds {_shown(size)}, more than the {_shown(most)} that fit into memory here; make it smaller"
        )
    stored = max(path.stat().st_size, 1)
    if size > MOST_PACKED and size > PACKED * stored:
        raise InputError(
            f"{path}: {_shown(stored)} on disk would become {_shown(size)} in memory, {size // stored:,} times as "
            f"much; is it damaged? Store it with less compression if it is not"
        )


def available_memory() -> int:
    """Bytes that can be used without swapping, within the limit of a container."""
    found = [UNKNOWN_MEMORY]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")] or found
        found.append(_left_in_container(Path("/sys/fs/cgroup")))
    except (OSError, ValueError):  # another system, or no limit, for which there is no file, or `max` in it
        pass
    return max(min(found), 0)


def _left_in_container(group: Path) -> int:
    limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
    held = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    cached = sum(int(held.get(name, 0)) for name in ("active_file", "inactive_file"))  # given up when needed
    return limit - used + cached


def read_text(path: Path, hint: str = "", *, growth: int = LINES) -> str:
    """The UTF-8 text of a file without a byte order mark, with line breaks as they are.

    Args:
        path: The file.
        hint: What to do about a file that is missing; ends the message.
        growth: Bytes of memory that each byte becomes.

    Raises:
        InputError: If it cannot be read, is too large, or is no UTF-8; names line and byte.
    """
    check_size(regular_file(path, hint), growth * path.stat().st_size)
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise InputError(f"{path.absolute()}: cannot be read ({problem}){hint}") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content[:1000]:
        raise InputError(f"{path}: cannot be read, it looks like UTF-16; save it as UTF-8")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        byte = f"byte 0x{content[problem.start]:02x}"
        raise InputError(f"{path}, line {line}: cannot be read, {byte} is no UTF-8; save the file as UTF-8") from None


def _shown(size: int) -> str:
    return f"{size / GIB:,.1f} GiB" if size >= GIB / 10 else f"{size / 2**20:,.1f} MiB"
