"""The records of a sweep as a mirror needs them: of each trial a few values in memory, all of it only to be sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sweeps.schema.records import Trial
from sweeps.storage.record_log import Parts, folder_parts, read_parts


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A trial without its numbers and settings, and the task that it was read in."""

    task: str
    trial_id: str
    study: str
    attack: str
    method: str
    dataset: str | None
    model: str | None
    code_version: str | None
    finished_at: float | None
    update_seconds: float
    has_result: bool


class RecordCache:
    """The records in a sweep's folder, of which only what changed is read again."""

    def __init__(self, sweep_dir: Path) -> None:
        self._sweep, self._folder = sweep_dir, sweep_dir / "records"
        self._tasks: dict[str, tuple[Parts, list[Outline]]] = {}

    def outlines(self) -> list[Outline]:
        """All finished trials, each once, in the order in which each study grew."""
        known = self._tasks
        self._tasks = {
            task: known[task] if task in known and known[task][0] == parts else (parts, self._outlined(task, parts))
            for task, parts in folder_parts(self._sweep).items()
        }
        found: dict[str, Outline] = {}
        for _, outlines in self._tasks.values():
            for one in outlines:
                found.setdefault(one.trial_id, one)
        return list(found.values())

    def whole(self, outlines: Sequence[Outline]) -> list[Trial]:
        """These trials with everything that was recorded, in the same order."""
        wanted = {outline.trial_id: outline.task for outline in outlines}
        found: dict[str, Trial] = {}
        for task in dict.fromkeys(wanted.values()):
            for trial in read_parts(self._folder, self._tasks[task][0]):
                if wanted.get(trial.trial_id) == task:
                    found[trial.trial_id] = trial
        return [found[name] for name in wanted]

    def _outlined(self, task: str, parts: Parts) -> list[Outline]:
        return [outline(task, trial) for trial in read_parts(self._folder, parts)]


def outline(task: str, trial: Trial) -> Outline:
    """The outline of a trial; its times, mark, group tags and status are as those of the whole."""
    return Outline(
        task=task,
        trial_id=trial.trial_id,
        study=trial.study,
        attack=trial.attack,
        method=trial.method,
        dataset=trial.dataset,
        model=trial.model,
        code_version=trial.code_version,
        finished_at=trial.finished_at,
        update_seconds=trial.update_seconds,
        has_result=trial.has_result,
    )
