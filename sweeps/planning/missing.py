"""What a sweep has not done yet, by its records."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from sweeps.config.outline import Outline
from sweeps.planning.reference_records import where_attack_succeeded
from sweeps.planning.study import Study
from sweeps.planning.task_list import ensemble_tasks, reference_tasks, study_tasks
from sweeps.planning.tasks import MeasureEnsemble, MeasureReferences, RunStudy, Task
from sweeps.storage.base import Folder
from sweeps.storage.record_log import read_own
from sweeps.trials.reference_names import ENSEMBLE_REFERENCES


class Missing(NamedTuple):
    """Tasks that still have something to record."""

    references: list[MeasureReferences]
    ensembles: list[MeasureEnsemble]
    studies: list[RunStudy]

    @property
    def tasks(self) -> list[Task]:
        """All of them."""
        return [*self.references, *self.ensembles, *self.studies]


def missing(sweep: Outline, sweep_dir: Folder) -> Missing:
    """Tasks whose records are incomplete; the longest study comes first, so that it does not end alone."""
    references = [task for task in reference_tasks(sweep) if references_missing(sweep_dir, task, sweep)]
    waiting = {task.threat for task in references}
    succeeded = cache(lambda threat: where_attack_succeeded(sweep, sweep_dir, threat, unknown=False))

    def unfinished(task: RunStudy) -> bool:
        return not Study(sweep, task, read_own(sweep_dir, task.folder), succeeded(task.threat)).finished()

    studies = [task for task in study_tasks(sweep) if task.threat in waiting or unfinished(task)]
    ensembles = [task for task in ensemble_tasks(sweep, sweep_dir) if ensemble_missing(sweep_dir, task)]
    return Missing(references, ensembles, sorted(studies, key=lambda task: -task.most_trials(sweep)))


def references_missing(sweep_dir: Folder, task: MeasureReferences, sweep: Outline) -> bool:
    """Whether a reference method of this task has no record yet."""
    return not set(task.methods(sweep)) <= _recorded_methods(sweep_dir, task)


def ensemble_missing(sweep_dir: Folder, task: MeasureEnsemble) -> bool:
    """Whether a reference of this ensemble has no record yet."""
    return not set(ENSEMBLE_REFERENCES) <= _recorded_methods(sweep_dir, task)


def _recorded_methods(sweep_dir: Folder, task: Task) -> set[str]:
    return {trial.method for trial in read_own(sweep_dir, task.folder)}
