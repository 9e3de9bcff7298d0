"""What a schedule has to know of the results so far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from sweeps.config.spec import Sweep
from sweeps.planning.missing import ensemble_missing
from sweeps.planning.reference_records import await_references, where_attack_succeeded
from sweeps.planning.study import load_study
from sweeps.planning.tasks import MeasureEnsemble, MeasureReferences, RunStudy, RunTrial, Task, Threat, ensemble_seeds
from sweeps.storage.base import Folder
from sweeps.storage.record_log import read_own


class DoneWork(Protocol):
    """The results so far."""

    def ensembles(self, threat: Threat) -> list[MeasureEnsemble]:
        """Ensembles that are still to be measured.

        The schedule asks once per threat, before anything else, when all references of the threat are there.
        """
        ...

    def open(self, study: RunStudy) -> list[RunTrial]:
        """The trials of a study that can run now, all at once."""
        ...

    def count(self, task: Task) -> int:
        """Recorded trials in the folder of a task."""
        ...


class RecordedWork:
    """The results in a sweep's folder.

    Args:
        sweep: The sweep.
        sweep_dir: Its folder, or a local copy of it.
        refresh: Brings one folder of records up to date where `sweep_dir` is a copy.
    """

    def __init__(self, sweep: Sweep, sweep_dir: Folder, refresh: Callable[[str], None] = lambda folder: None) -> None:
        self.sweep, self.dir, self.refresh = sweep, sweep_dir, refresh

    def ensembles(self, threat: Threat) -> list[MeasureEnsemble]:
        for seed in self.sweep.scenario_seeds:
            self.refresh(MeasureReferences(*threat, seed).folder)
        await_references(self.sweep, self.dir, threat)
        succeeded = where_attack_succeeded(self.sweep, self.dir, threat, unknown=False)
        tasks = [MeasureEnsemble(*threat, seed) for seed in ensemble_seeds(self.sweep, succeeded)]
        return [task for task in tasks if ensemble_missing(self.dir, task)]

    def open(self, study: RunStudy) -> list[RunTrial]:
        self.refresh(study.folder)
        return load_study(self.sweep, self.dir, study).open()

    def count(self, task: Task) -> int:
        self.refresh(task.folder)
        return len(read_own(self.dir, task.folder))
