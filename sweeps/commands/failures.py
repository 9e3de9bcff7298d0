"""Failed trials, grouped by what went wrong."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sweeps.commands.look import folder_parser, show
from sweeps.schema.records import Trial
from sweeps.storage.manifest import read_manifest
from sweeps.storage.record_log import iter_trials

EXAMPLES = 3  # trials named per group
TASKS = 20  # tasks named per group


@dataclass
class Failure:
    """Trials that failed at the same place with the same kind of error.

    Attributes:
        example: Traceback of the first of them.
        tasks: How many there are of each task.
        named: The first few.
    """

    title: str
    example: str
    tasks: Counter[str] = field(default_factory=Counter)
    named: list[Trial] = field(default_factory=list)

    @property
    def count(self) -> int:
        return self.tasks.total()

    def add(self, trial: Trial) -> None:
        self.tasks[trial.study] += 1
        if len(self.named) < EXAMPLES:
            self.named.append(trial)


def main(words: Sequence[str] | None = None, prog: str = "unlearn failures") -> int:
    """Run the verb; returns the exit code: 0 shown, 1 storage fails, 2 bad input."""
    return show(folder_parser(prog), words, lambda replica, given: failure_lines(replica.dir))


def group_failures(trials: Iterable[Trial]) -> tuple[list[Failure], int]:
    """Failures by their kind of error and the line that raised it, the most frequent first.

    And how many trials there are in all.
    """
    groups: dict[tuple[str, str], Failure] = {}
    total = 0
    for total, trial in enumerate(trials, start=1):  # noqa: B007 - the last number is the count
        if trial.error:
            key = signature(trial.error)
            groups.setdefault(key, Failure(": ".join(filter(None, key)), trial.error)).add(trial)
    return sorted(groups.values(), key=lambda failure: -failure.count), total


def signature(traceback: str) -> tuple[str, str]:
    """(kind of error, place that raised it): messages hold numbers that differ from trial to trial."""
    lines = [line.strip() for line in traceback.strip().splitlines()]
    places = [line for line in lines if line.startswith('File "')]
    kind = next((line for line in reversed(lines) if line), "").partition(":")[0]
    return kind, places[-1] if places else ""


def failure_lines(sweep_dir: Path) -> list[str]:
    """The failures of the sweep in `sweep_dir` as text. Raises InputError if there is no sweep."""
    read_manifest(sweep_dir)
    failures, total = group_failures(iter_trials(sweep_dir))
    if not failures:
        return [f"none of {total} trials failed"]
    head = f"{sum(failure.count for failure in failures)} of {total} trials failed, in {len(failures)} ways"
    return [head, *itertools.chain(*map(_describe, failures))]


def _describe(failure: Failure) -> list[str]:
    where = ", ".join(f"{name} ({count})" for name, count in failure.tasks.most_common(TASKS))
    more = f" and {len(failure.tasks) - TASKS} more tasks" if len(failure.tasks) > TASKS else ""
    examples = [f"  {t.trial_id}  seed {t.seed}  {t.settings}" for t in failure.named]
    traceback = [f"    {line}" for line in failure.example.rstrip().splitlines()]
    return ["", f"{failure.count} x {failure.title}", f"  in {where}{more}", *examples, *traceback]
