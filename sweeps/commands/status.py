"""How far a sweep is, from its folder alone: live, stopped or finished."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sweeps.config.spec import Sweep
from sweeps.execution.worker import WORKING
from sweeps.planning.manifest import read_manifest
from sweeps.planning.plan import Missing, missing
from sweeps.planning.tasks import Cell, members, trainings, trials_in
from sweeps.storage.files import Folder, Remote, asked, s3
from sweeps.storage.holders import Holder
from sweeps.storage.leases import holder_of
from sweeps.storage.local_copy import LocalCopy
from sweeps.storage.record_log import Trial, iter_trials

PART = re.compile(r"(--trial\d+-\w+-seed\d+)?(--alone)?$")  # what the names of parts of a cell end with


@dataclass
class Line:
    """One line of the table: an attack's references, or what one method does against it.

    left: trials still to do, at most. running: cells that a worker is at. seconds: of trials and reference trainings.
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
    """Seconds that a trial kept its worker; a reference model counts with its training (the corrupted model's is taken
    to be as long as the oracle's)."""
    if trial.stage != "reference" or trial.method == "retrain_at_budget":
        return trial.trial_seconds or 0.0
    if trial.method == "none":
        return trial.oracle_seconds or 0.0
    return sum(rung.seconds or 0.0 for rung in trial.rungs)


def table(sweep: Sweep, replica: LocalCopy) -> list[Line]:
    """The lines of the table, references first."""
    done: Counter[str] = Counter()
    lines: dict[tuple[str, str], Line] = {}
    for trial in iter_trials(replica.dir):
        done[trial.study] += 1
        key = trial.attack, searched(trial) if _studied(trial) else trial.stage + "s"
        lines.setdefault(key, Line(*key)).add(trial)
    left = missing(sweep, replica.dir)
    running = at_work_now(replica.home)
    for cell in (*left.references, *left.studies):
        line = lines.setdefault(_key(cell), Line(*_key(cell)))
        line.left += max(0, trials_in(sweep, cell) - done[cell.name])
        line.running += running[cell.name]
    for cell, name in trained_first(sweep, left).items():
        lines[cell.attack, name].running += running[cell.name]
    expect(lines.values())
    return sorted(lines.values(), key=lambda line: (line.attack, line.method != "references", line.method))


def at_work_now(home: Folder) -> Counter[str]:
    """How many workers are at each cell, by its name; trials of a study that are handed out one by one are its."""
    leases = home / WORKING
    names = [name for name in _names(leases) if holder_of(leases / name) is not None]
    return Counter(PART.sub("", name, count=1) for name in names)


def _names(leases: Folder) -> list[str]:
    if isinstance(leases, Remote):
        with asked(leases):
            return [key.rpartition("/")[2] for key in s3().find(leases.url)]
    return [path.name for path in leases.glob("*")]


def trained_first(sweep: Sweep, left: Missing) -> dict[Cell, str]:
    """The cells that train what references and ensembles need, and the line of the table that each is told in."""
    needed = [trainings(sweep, cell) for cell in left.references]
    models = {model: "references" for poison, models in needed for model in (poison, *models)}
    return models | dict.fromkeys(members(sweep, left.studies), "ensembles")


def searched(trial: Trial) -> str:
    """The method of the study that a trial is of, or `best`."""
    return trial.study.removeprefix(f"{trial.attack}--").partition("--")[0]


def _studied(trial: Trial) -> bool:
    return trial.proposal is not None


def _key(cell: Cell) -> tuple[str, str]:
    return cell.attack, cell.method if cell.kind == "study" else f"{cell.kind}s"


def expect(lines: Iterable[Line]) -> None:
    """Fill in what is expected of each line: trials left, at the mean length of its own trials, else of its method's,
    else of all."""
    lines = list(lines)
    for line in lines:
        same = [other for other in lines if other.method == line.method]
        for known in ([line], same, lines):
            done = sum(other.done for other in known)
            if done:
                line.expected = line.left * sum(other.seconds for other in known) / done
                break


def status_lines(replica: LocalCopy) -> list[str]:
    """The state of a sweep as text. Raises InputError if there is none."""
    sweep = Sweep.from_dict(read_manifest(replica.dir)["spec"])
    lines = table(sweep, replica)
    unit, share = ("GPU", sweep.resources.gpus) if sweep.resources.gpus else ("CPU", sweep.resources.cpus)
    total = Line("all", "")
    for line in lines:
        for name in ("done", "failed", "running", "left", "seconds", "expected"):
            setattr(total, name, getattr(total, name) + getattr(line, name))
    head = ("attack", "method", "done", "failed", "running", "left", f"{unit}-hours", "expected")
    rows = [head, *(_row(line, share) for line in (*lines, total))]
    state = _state(holder_of(replica.home / ".lock"), total)
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
