"""A private folder for a Ray of this machine, and the end of everything that Ray leaves behind.

Ray lets every user write to the folders of its sockets and logs, so they lie in a folder that its owner alone can pass
through. Its sockets need a short name. While the folder is in use it is locked, by a lock that ends with its process;
one that is not locked was left by a process that was killed. A keeper (`ray_keeper.py`) outlives such a process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from sweeps.launch import module_command
from sweeps.storage.errors import writing
from unlearn_core.checks import InputError

MARK = "UNLEARN_RAY_HOME"  # in the environment of all processes of that Ray: its folder
PREFIX = "ulray-"
SOCKET_LIMIT = 107  # bytes in the path of a socket on Linux
BELOW = len("/ulray-01234567/r/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store")
PATIENCE = 10.0  # seconds for killed processes to go
EVERYWHERE = ("/tmp", "/var/tmp")
GOODBYE = b"goodbye"


@contextlib.contextmanager
def private_home() -> Iterator[str]:
    """A folder in which Ray keeps its files.

    It is gone afterwards, with all processes that were started meanwhile and are still alive.

    Yields:
        The folder.

    Raises:
        InputError: If there is no place for it.
        StorageError: If the disk is full.
    """
    places = fitting_places()
    for place in places:
        clear_stale(place)
    folder, lock = _locked_folder(places[0])
    try:
        os.environ[MARK] = str(folder)
        yield str(folder / "r")  # Ray opens this one for everybody
    finally:
        os.environ.pop(MARK, None)
        clear(folder)
        os.close(lock)


@contextlib.contextmanager
def kept(last_words: str) -> Iterator[Callable[[], None]]:
    """While the body runs, a keeper waits for this process to die; then it prints `last_words` and clears up.

    Yields:
        What dismisses the keeper in silence.
    """
    command = module_command("sweeps.execution.ray_keeper", last_words, os.environ.get(MARK, ""))
    clean = {name: value for name, value in os.environ.items() if name != MARK}
    keeper = subprocess.Popen(command, stdin=subprocess.PIPE, env=clean, start_new_session=True)
    assert keeper.stdin is not None
    number = keeper.stdin.fileno()

    def dismiss() -> None:
        with contextlib.suppress(OSError):  # it may have been killed
            os.write(number, GOODBYE)

    try:
        yield dismiss
    finally:
        dismiss()
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            keeper.communicate(timeout=PATIENCE)


def fitting_places() -> list[Path]:
    """Where the folder can be, best first: RAY_TMPDIR, the system's temporary folder, or what every system has."""
    given = [os.environ.get("RAY_TMPDIR", ""), *EVERYWHERE]
    with contextlib.suppress(OSError):  # there is none that can be written
        given.insert(1, tempfile.gettempdir())
    found = [Path(text) for text in dict.fromkeys(filter(None, given)) if _fits(Path(text))]
    if not found:
        raise InputError(
            f"Ray finds no folder for its sockets: it must be writable, its name at most {SOCKET_LIMIT - BELOW} bytes "
            "of ASCII, and nobody else may rename what is in it; make one and set RAY_TMPDIR to it, or use --inline"
        )
    return found


def _fits(place: Path) -> bool:
    name = os.fsencode(place)
    if not (place.is_absolute() and name.isascii() and len(name) + BELOW <= SOCKET_LIMIT):
        return False
    try:
        found = place.stat()
    except OSError:
        return False
    shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    own = found.st_uid in (0, os.geteuid())
    return stat.S_ISDIR(found.st_mode) and own and not shared and os.access(place, os.W_OK | os.X_OK)


def _locked_folder(place: Path) -> tuple[Path, int]:
    while True:
        with writing(place):
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))  # mode 0700
        lock = _lock(folder)
        if lock is not None and folder.exists():
            return folder, lock
        if lock is not None:  # another process thought it stale, before it was locked
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """A descriptor that holds the lock of a folder of this user, or None."""
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        if os.fstat(number).st_uid == os.geteuid():
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return number
    except OSError:
        pass
    os.close(number)
    return None


def clear_stale(place: Path) -> None:
    """Remove what processes of this user left in `place` when they were killed."""
    for folder in place.glob(f"{PREFIX}*"):
        lock = _lock(folder)
        if lock is not None:
            clear(folder)
            os.close(lock)


def clear(folder: Path) -> None:
    """Kill what is left of the Ray in `folder`, and remove it."""
    end = time.monotonic() + PATIENCE
    while (left := processes_of(folder)) and time.monotonic() < end:
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


def processes_of(folder: Path) -> list[int]:
    """Those that have the folder in their environment or write to files in it.

    Ray's agents rename themselves, over the beginning of their environment. One that is dead and not yet buried has
    neither.
    """
    mark, found = f"{MARK}={folder}".encode(), []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # of another user, or just gone
            marked = mark in (process / "environ").read_bytes().split(b"\0")
            if int(process.name) != os.getpid() and (marked or _writes_in(process, folder.resolve())):
                found.append(int(process.name))
    return found


def _writes_in(process: Path, folder: Path) -> bool:
    """Whether a process writes to files in a folder, but for the one that has locked the folder."""
    opened = dict(_open_files(process))
    return str(folder) not in opened and any(
        path.startswith(f"{folder}/") and mode & stat.S_IWUSR for path, mode in opened.items()
    )


def _open_files(process: Path) -> Iterator[tuple[str, int]]:
    """Their names, and what may be done with each as a mode."""
    for link in (process / "fd").iterdir():
        with contextlib.suppress(OSError):  # just closed
            yield os.readlink(link), link.lstat().st_mode
