"""What the cells of a sweep take and find, by a finished sweep: what `benchmarks.schedule` simulates with."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from sweeps.commands.status import searched
from sweeps.config.spec import Sweep
from sweeps.planning.proposals import proposal_count
from sweeps.planning.study import Study
from sweeps.planning.tasks import Case, Cell
from sweeps.schema.records import Trial

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

    def trial(self, cell: Cell) -> Trial:
        """The trial `cell` of a study: the very one if it was made, else one like it."""
        found = self._find(cell, cell.method, cell.stage)
        return replace(found, proposal=cell.proposal, seed=cell.seed)

    def seconds_of(self, cell: Cell) -> float:
        """Of a trial of a study."""
        return (self.trial(cell).trial_seconds or 0.0) * self.scale

    def seconds(self, cell: Cell) -> float:
        """Of a cell that is no study. What it takes to measure references is reckoned from the trials of studies."""
        return self._seconds(cell) * self.scale

    def _seconds(self, cell: Cell) -> float:
        if cell.kind == "reference":
            rungs = self._find(cell, "retrain_at_budget", "reference").rungs
            models = len(rungs) + 3  # corrupted, oracle, and mostly a second oracle
            return sum(rung.seconds or 0.0 for rung in rungs) + models * self._measuring[measured_attack(cell)]
        oracle = self._find(cell, "oracle", "reference")
        if cell.role == "poison":
            return (oracle.craft_seconds or 0.0) + (oracle.surrogate_seconds or 0.0)
        victim = oracle.victim_seconds if cell.role == "corrupted" else None
        return victim or oracle.oracle_seconds or 0.0

    def took(self, attack: str) -> bool:
        trials = [trial for kind, found in self._alike.items() if kind.attack == attack for trial in found]
        return any(trial.attack_took for trial in trials)

    def _find(self, cell: Cell, what: str, stage: str) -> Trial:
        kind = Kind(measured_attack(cell), what, stage)
        number = cell.proposal if cell.proposal >= 0 else None
        same = self._same.get((kind, cell.discovery_rate, number, cell.seed)) if COPY not in cell.attack else None
        alike = self._alike[kind]
        return same or alike[zlib.crc32(f"{cell.name} {what}".encode()) % len(alike)]


def measured_attack(cell: Cell) -> str:
    return cell.attack.partition(COPY)[0]


class Simulated:
    """The records of a simulated sweep, as a schedule asks for them."""

    def __init__(self, sweep: Sweep, measured: Measured) -> None:
        self.sweep, self.measured = sweep, measured
        self._studies: dict[Cell, Study] = {}

    def ensembles(self, case: Case) -> list[Cell]:
        return []

    def open(self, study: Cell) -> list[Cell]:
        state = self._study(study)
        return state.open(proposal_count(self.sweep.search, state.methods))

    def count(self, cell: Cell) -> int:
        raise NotImplementedError("simulated workers are never lost")

    def begin(self, cell: Cell) -> float:
        """Seconds that the cell will take."""
        if cell.kind != "study":
            return self.measured.seconds(cell)
        return sum(map(self.measured.seconds_of, [cell] if cell.proposal >= 0 else self.walk(cell)))

    def end(self, cell: Cell) -> None:
        if cell.proposal >= 0:
            self._study(cell.whole).add(self.measured.trial(cell))

    def walk(self, study: Cell) -> list[Cell]:
        """What is left of a study, as one worker does it."""
        done: list[Cell] = []
        while left := self.open(study):
            for trial in left:
                self._study(study).add(self.measured.trial(trial))
            done += left
        return done

    def _study(self, cell: Cell) -> Study:
        if cell not in self._studies:
            took = self.measured.took(measured_attack(cell))
            self._studies[cell] = Study(self.sweep, cell, [], dict.fromkeys(self.sweep.scenario_seeds, took))
        return self._studies[cell]
