"""What the tasks of a sweep take and find, by a finished sweep: what `benchmarks.schedule` simulates with."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from sweeps.commands.status import searched
from sweeps.config.spec import Sweep
from sweeps.planning.study import Study
from sweeps.planning.tasks import (
    CraftPoison,
    MeasureEnsemble,
    MeasureReferences,
    RunStudy,
    RunTrial,
    Task,
    Threat,
    TrainModel,
)
from sweeps.schema.records import Trial
from sweeps.schema.stages import Stage

COPY = "~"  # in the label of a copied attack; what comes before it is the attack that was measured


class Kind(NamedTuple):
    """Trials that can stand for each other: of the same attack and, if they are of a study, method and stage."""

    attack: str
    what: str
    stage: str


class Measured:
    """The finished trials of a sweep, as if all had taken `scale` times as long."""

    def __init__(self, trials: Sequence[Trial], scale: float = 1.0) -> None:
        self.scale = scale
        self._alike: dict[Kind, list[Trial]] = defaultdict(list)
        self._same: dict[tuple[Kind, float | None, int | None, int], Trial] = {}
        rung_seconds: dict[str, list[float]] = defaultdict(list)
        for trial in trials:
            studied = trial.proposal is not None
            kind = Kind(trial.attack, searched(trial) if studied else trial.method, trial.stage)
            self._alike[kind].append(trial)
            self._same[kind, trial.discovery_rate, trial.proposal, trial.seed] = trial
            if studied and trial.rungs:
                rung_seconds[trial.attack].append((trial.evaluation_seconds or 0.0) / len(trial.rungs))
        self._measuring = {attack: sum(found) / len(found) for attack, found in rung_seconds.items()}

    def trial(self, task: RunTrial) -> Trial:
        """The trial of a study: the very one if it was made, else one like it."""
        found = self._find(task, task.method, task.stage, task.proposal)
        return replace(found, proposal=task.proposal, seed=task.seed)

    def seconds(self, task: Task) -> float:
        """Of any task but a study. What it takes to measure references is estimated from the trials of studies."""
        return self._seconds(task) * self.scale

    def _seconds(self, task: Task) -> float:
        match task:
            case RunTrial():
                return self.trial(task).trial_seconds or 0.0
            case CraftPoison():
                oracle = self._reference(task, "oracle")
                return (oracle.craft_seconds or 0.0) + (oracle.surrogate_seconds or 0.0)
            case TrainModel():
                oracle = self._reference(task, "oracle")
                victim = oracle.victim_seconds if task.role == "corrupted" else None
                return victim or oracle.oracle_seconds or 0.0
            case MeasureReferences():
                rungs = self._reference(task, "retrain_at_budget").rungs
                models = len(rungs) + 3  # corrupted, oracle, and mostly a second oracle
                return sum(rung.seconds or 0.0 for rung in rungs) + models * self._measuring[measured_attack(task)]
        raise TypeError(f"the seconds of {task.name} are recorded nowhere")

    def _reference(self, task: CraftPoison | TrainModel | MeasureReferences, method: str) -> Trial:
        return self._find(task, method, Stage.REFERENCE)

    def took(self, attack: str) -> bool:
        trials = [trial for kind, found in self._alike.items() if kind.attack == attack for trial in found]
        return any(trial.attack_took for trial in trials)

    def _find(
        self,
        task: CraftPoison | TrainModel | MeasureReferences | RunTrial,
        what: str,
        stage: Stage,
        proposal: int | None = None,
    ) -> Trial:
        kind = Kind(measured_attack(task), what, stage)
        rate = 1.0 if isinstance(task, CraftPoison) else task.discovery_rate
        same = self._same.get((kind, rate, proposal, task.seed)) if COPY not in task.attack else None
        alike = self._alike[kind]
        return same or alike[zlib.crc32(f"{task.name} {what}".encode()) % len(alike)]


def measured_attack(task: Task) -> str:
    return task.attack.partition(COPY)[0]


class Simulated:
    """The work that a simulated sweep has done, as a schedule asks for it."""

    def __init__(self, sweep: Sweep, measured: Measured) -> None:
        self.sweep, self.measured = sweep, measured
        self._studies: dict[RunStudy, Study] = {}

    def ensembles(self, threat: Threat) -> list[MeasureEnsemble]:
        return []

    def open(self, study: RunStudy) -> list[RunTrial]:
        return self._study(study).open()

    def count(self, task: Task) -> int:
        raise NotImplementedError("simulated workers are never lost")

    def begin(self, task: Task) -> float:
        """Seconds that the task will take."""
        parts = self.walk(task) if isinstance(task, RunStudy) else [task]
        return sum(map(self.measured.seconds, parts))

    def end(self, task: Task) -> None:
        if isinstance(task, RunTrial):
            self._study(task.study).add(self.measured.trial(task))

    def walk(self, study: RunStudy) -> list[RunTrial]:
        """What is left of a study, as one worker does it."""
        done: list[RunTrial] = []
        while left := self.open(study):
            for trial in left:
                self._study(study).add(self.measured.trial(trial))
            done += left
        return done

    def _study(self, task: RunStudy) -> Study:
        if task not in self._studies:
            took = self.measured.took(measured_attack(task))
            self._studies[task] = Study(self.sweep, task, [], dict.fromkeys(self.sweep.scenario_seeds, took))
        return self._studies[task]
