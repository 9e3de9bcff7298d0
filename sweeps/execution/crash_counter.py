"""How often processes were lost at the same trial: counted by a note that each leaves behind.

A worker writes down what it is at, and takes the note away when its task ends, in whatever way. A note that is still
there when the task starts again says at what the process before was lost. Why it was cannot be known: a crash in
native code, a GPU that failed, a machine out of memory, or one that was preempted or switched off.

A note is a courtesy, as a lease is: where it cannot be written a loss is not counted, and nothing else happens.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import NamedTuple

from sweeps.planning.tasks import RunStudy, RunTrial, Task
from sweeps.storage.base import Folder
from sweeps.storage.folders import at, child
from sweeps.storage.holders import TAKEN, Holder, this_machine
from sweeps.storage.leases import holder_of

LOSSES = 3  # lost processes at the same place, after which it is not tried again
START = "start"  # whatever comes before a task's first trial; in a task without trials everything


class ProcessLostError(RuntimeError):
    """Too many worker processes were lost at the same place."""


class Note(NamedTuple):
    """at: id of a trial, or START.

    losses: lost processes before this one, by what they were at. run: which run of the command it was. inline:
    whether the worker was the command itself. machine: where it was.
    """

    at: str
    losses: dict[str, int]
    run: str
    inline: bool
    machine: str


class Attempts:
    """The losses of one task, and its note, at `path`. driver: who runs the sweep, where that is known."""

    def __init__(self, path: Folder, driver: Holder | None) -> None:
        self._path = path
        self._run = driver.token if driver else ""
        self._inline = self._run in TAKEN
        self._losses = losses_after(_read(path), self._run)

    def begin(self, at: str) -> int:
        """Note what is done next; returns how many processes were lost at it before."""
        lost = self._losses.get(at, 0)
        if at != START:  # what was lost elsewhere did not happen again
            self._losses = {at: lost} if lost else {}
        note = Note(at, self._losses, self._run, self._inline, this_machine())
        _write(self._path, json.dumps(note._asdict()).encode())
        return lost

    def end(self) -> None:
        with contextlib.suppress(OSError):
            at(self._path).remove()


def losses_after(note: Note | None, run: str) -> dict[str, int]:
    """The losses that are known in this `run`, from the note of the process before.

    A run of the command counts those before the first trial afresh. It also takes no count of the process that ended
    with the run before, together with the command; unless it was the command itself, which a trial may have killed.
    Nor is a process counted that was lost on another machine than the next one runs on: that machine may be gone.
    """
    if note is None:
        return {}
    here = note.machine == this_machine()
    same = note.run == run
    losses = {at: count for at, count in note.losses.items() if same or at != START}
    if here and (same or (note.inline and note.at != START)):
        losses[note.at] = losses.get(note.at, 0) + 1
    return losses


@contextlib.contextmanager
def noted(sweep_dir: Folder, task: Task) -> Iterator[Attempts]:
    """The attempts at a task while a worker is at it.

    Yields:
        What counts the attempts at its trials.

    Raises:
        ProcessLostError: If too many never got to its first trial; the next run of the command tries it again.
    """
    attempts = Attempts(child(sweep_dir / ".attempts", task.name), _driver(sweep_dir))
    try:
        lost = attempts.begin(START)
        if lost >= LOSSES:
            what = "before its first trial" if isinstance(task, RunStudy | RunTrial) else "over it"
            raise ProcessLostError(f"{lost_text(lost)} {what}; run the same command again to try it again")
        yield attempts
    finally:
        attempts.end()


def lost_text(times: int) -> str:
    """What is known about lost processes."""
    why = "it crashed, its GPU failed, the machine ran out of memory or went away"
    return f"the worker process was lost {times} times ({why})"


def _driver(sweep_dir: Folder) -> Holder | None:
    with contextlib.suppress(OSError):
        return holder_of(sweep_dir / ".lock")
    return None


def _read(path: Folder) -> Note | None:
    try:
        return Note(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):  # there is none, or the process was lost while it wrote it
        return None


def _write(path: Folder, data: bytes) -> None:
    with contextlib.suppress(OSError):
        at(path.parent).make_folder()
        at(path).write(data, durable=False)
