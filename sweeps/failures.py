"""Failed trials, grouped by what went wrong."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from sweeps.store import Trial, read_trials
from sweeps.worker import read_manifest

EXAMPLES = 3  # trials named per group


class Failure(NamedTuple):
    """Trials that failed at the same place with the same kind of error. example: traceback of the first of them."""

    title: str
    trials: list[Trial]
    example: str


def group_failures(trials: Iterable[Trial]) -> list[Failure]:
    """Failures by their kind of error and the line that raised it, the most frequent first."""
    groups: dict[tuple[str, str], list[Trial]] = {}
    for trial in trials:
        if trial["error"]:
            groups.setdefault(signature(trial["error"]), []).append(trial)
    found = [Failure(": ".join(filter(None, key)), group, group[0]["error"]) for key, group in groups.items()]
    return sorted(found, key=lambda failure: -len(failure.trials))


def signature(traceback: str) -> tuple[str, str]:
    """(kind of error, place that raised it): messages hold numbers that differ from trial to trial."""
    lines = [line.strip() for line in traceback.strip().splitlines()]
    places = [line for line in lines if line.startswith('File "')]
    kind = next((line for line in reversed(lines) if line), "").partition(":")[0]
    return kind, places[-1] if places else ""


def failure_lines(sweep_dir: Path) -> list[str]:
    """The failures of the sweep in `sweep_dir` as text. Raises InputError if there is no sweep."""
    read_manifest(sweep_dir)
    trials = read_trials(sweep_dir)
    failures = group_failures(trials)
    if not failures:
        return [f"none of {len(trials)} trials failed"]
    total = sum(len(failure.trials) for failure in failures)
    head = f"{total} of {len(trials)} trials failed, in {len(failures)} ways"
    return [head, *itertools.chain(*map(_describe, failures))]


def _describe(failure: Failure) -> list[str]:
    cells = Counter(trial["study"] for trial in failure.trials)
    where = ", ".join(f"{name} ({count})" for name, count in cells.most_common())
    examples = [f"  {t['trial_id']}  seed {t['seed']}  {t['settings']}" for t in failure.trials[:EXAMPLES]]
    traceback = [f"    {line}" for line in failure.example.rstrip().splitlines()]
    return ["", f"{len(failure.trials)} x {failure.title}", f"  in {where}", *examples, *traceback]
