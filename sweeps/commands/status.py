"""How far a sweep is, from its folder alone: live, stopped or finished."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sweeps.commands.look import folder_parser, show
from sweeps.config.outline import Outline, outline_of
from sweeps.planning.missing import missing
from sweeps.planning.tasks import Task, folder_of
from sweeps.schema.stages import Stage
from sweeps.storage.base import Folder
from sweeps.storage.folders import at
from sweeps.storage.holders import Holder
from sweeps.storage.leases import holder_of
from sweeps.storage.local_copy import LocalCopy
from sweeps.storage.manifest import read_manifest
from sweeps.storage.record_log import Trial, iter_trials
from sweeps.storage.signs import LOCK, WORKING


@dataclass
class Line:
    """One line of the table: an attack's references, or what one method does against it.

    Attributes:
        running: Tasks that a worker is at.
        left: Trials still to do, at most.
        seconds: Of trials and reference trainings.
    """

    attack: str
    method: str
    done: int = 0
    failed: int = 0
    running: int = 0
    left: int = 0
    seconds: float = 0.0
    expected: float = 0.0  # seconds that what is left will take, at the speed so far

    def add(self, trial: Trial) -> None:
        self.done += 1
        self.failed += trial.error is not None
        self.seconds += trial_seconds(trial)


def trial_seconds(trial: Trial) -> float:
    """Seconds that a trial kept its worker.

    A reference model counts with its training (the corrupted model's is taken to be as long as the oracle's).
    """
    if trial.stage != Stage.REFERENCE or trial.method == "retrain_at_budget":
        return trial.trial_seconds or 0.0
    if trial.method == "none":
        return trial.oracle_seconds or 0.0
    return sum(rung.seconds or 0.0 for rung in trial.rungs)


def table(sweep: Outline, replica: LocalCopy) -> list[Line]:
    """The lines of the table, references first."""
    done: Counter[str] = Counter()
    lines: dict[tuple[str, str], Line] = {}
    for trial in iter_trials(replica.dir):
        done[trial.study] += 1
        key = trial.attack, searched(trial) if _studied(trial) else trial.stage + "s"
        lines.setdefault(key, Line(*key)).add(trial)
    left = missing(sweep, replica.dir)
    running = at_work_now(replica.home)
    for task in left.tasks:
        lines.setdefault(_key(task), Line(*_key(task))).left += max(0, task.most_trials(sweep) - done[task.name])
    needed = [need for task in left.tasks for need in task.needs(sweep)]
    first = [need for task in needed for need in task.needs(sweep)]
    for task in dict.fromkeys([*left.tasks, *needed, *first]):
        lines[_key(task)].running += running[task.name]
    expect(lines.values())
    return sorted(lines.values(), key=lambda line: (line.attack, line.method != "references", line.method))


def at_work_now(home: Folder) -> Counter[str]:
    """How many workers are at each task, by its name; trials that are handed out one by one count for their study."""
    leases = home / WORKING
    names = [name for name, _ in at(leases).files() if holder_of(leases / name) is not None]
    return Counter(map(folder_of, names))


def searched(trial: Trial) -> str:
    """The method of the study that a trial is of, or `best`."""
    return trial.study.removeprefix(f"{trial.attack}--").partition("--")[0]


def _studied(trial: Trial) -> bool:
    return trial.proposal is not None


def _key(task: Task) -> tuple[str, str]:
    return task.attack, task.row


def expect(lines: Iterable[Line]) -> None:
    """Fill in what is expected of each line.

    Trials left, at the mean length of its own trials, else of its method's, else of all.
    """
    lines = list(lines)
    for line in lines:
        same = [other for other in lines if other.method == line.method]
        for known in ([line], same, lines):
            done = sum(other.done for other in known)
            if done:
                line.expected = line.left * sum(other.seconds for other in known) / done
                break


def main(words: Sequence[str] | None = None, prog: str = "unlearn status") -> int:
    """Run the verb; returns the exit code: 0 shown, 1 storage fails, 2 bad input."""
    return show(folder_parser(prog), words, lambda replica, given: status_lines(replica))


def status_lines(replica: LocalCopy) -> list[str]:
    """The state of a sweep as text. Raises InputError if there is none."""
    sweep = outline_of(read_manifest(replica.dir)["spec"])
    lines = table(sweep, replica)
    unit, share = ("GPU", sweep.resources.gpus) if sweep.resources.gpus else ("CPU", sweep.resources.cpus)
    total = Line("all", "")
    for line in lines:
        for name in ("done", "failed", "running", "left", "seconds", "expected"):
            setattr(total, name, getattr(total, name) + getattr(line, name))
    head = ("attack", "method", "done", "failed", "running", "left", f"{unit}-hours", "expected")
    rows = [head, *(_row(line, share) for line in (*lines, total))]
    state = _state(holder_of(replica.home / LOCK), total)
    return [f"sweep {sweep.name}: {replica.home}", state, "", *_aligned(rows)]


def _row(line: Line, share: float) -> tuple[str, ...]:
    counts = (line.done, line.failed, line.running, line.left)
    hours = (line.seconds * share / 3600, line.expected * share / 3600)
    return (line.attack, line.method, *map(str, counts), *(f"{value:.3f}" for value in hours))


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            t.ljust(w) if i < 2 else t.rjust(w) for i, (t, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _state(driver: Holder | None, total: Line) -> str:
    if driver:
        return f"running: {driver}"
    if total.left:
        return "stopped: run its command again to go on"
    return f"finished: {total.done} trials, {total.failed} failed"
