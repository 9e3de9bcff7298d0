"""Tasks that search and confirm: a study, or one trial of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sweeps.config.outline import Outline, SearchedMethod
from sweeps.planning.proposals import proposal_count
from sweeps.planning.task import Task, Threat, folder_name
from sweeps.schema.stages import Stage

BEST = "best"  # the method of a study that searches over all methods


@dataclass(frozen=True)
class RunStudy(Task):
    """Search over the settings of a method (or of all methods: `best`), then confirm what was chosen."""

    kind = "run_study"

    discovery_rate: float
    method: str

    @property
    def folder(self) -> str:
        return folder_name(self.attack, self.method, self.discovery_rate)

    @property
    def row(self) -> str:
        return self.method

    @property
    def threat(self) -> Threat:
        return Threat(self.attack, self.discovery_rate)

    @property
    def alike(self) -> tuple[str, ...]:
        return RunStudy.kind, self.method

    def methods(self, sweep: Outline) -> dict[str, SearchedMethod]:
        """The methods that the study searches over."""
        return dict(sweep.methods) if self.method == BEST else {self.method: sweep.methods[self.method]}

    def proposals(self, sweep: Outline) -> int:
        """How many proposals the study makes."""
        return proposal_count(sweep.search, self.methods(sweep))

    def trial(self, stage: Stage, proposal: int, seed: int) -> RunTrial:
        """One trial of the study."""
        return RunTrial(self.attack, self.discovery_rate, self.method, stage, proposal, seed)

    def price(self, sweep: Outline) -> float:
        return self.ladders(sweep) * max(sweep.budgets)

    def ladders(self, sweep: Outline) -> int:
        """The most ladders that the study climbs: one per trial, in an ensemble trial one per member and shadow."""
        return self.most_trials(sweep) + self._most_ensemble_trials(sweep) * (2 * sweep.ensemble.members - 1)

    def most_trials(self, sweep: Outline) -> int:
        tuning = self.proposals(sweep) * len(sweep.seeds.tuning)
        confirmation = self._most_chosen(sweep) * len(sweep.seeds.confirmation)
        return tuning + confirmation + self._most_ensemble_trials(sweep)

    def _most_ensemble_trials(self, sweep: Outline) -> int:
        seeds = dict.fromkeys((*sweep.seeds.tuning, *sweep.seeds.confirmation), True)
        return self._most_chosen(sweep) * len(ensemble_seeds(sweep, seeds))

    def _most_chosen(self, sweep: Outline) -> int:
        return min(self.proposals(sweep), len(sweep.budgets))


@dataclass(frozen=True)
class RunTrial(Task):
    """One trial of a study, where studies are handed out trial by trial."""

    kind = "run_trial"

    discovery_rate: float
    method: str
    stage: Stage
    proposal: int
    seed: int

    @property
    def study(self) -> RunStudy:
        return RunStudy(self.attack, self.discovery_rate, self.method)

    @property
    def name(self) -> str:
        part = f"--trial{self.proposal}-{self.stage}-seed{self.seed}"
        return self.folder + part + ("--alone" if self.whole_gpu else "")

    @property
    def folder(self) -> str:
        return self.study.folder

    @property
    def row(self) -> str:
        return self.study.row

    @property
    def alike(self) -> tuple[str, ...]:
        return self.study.alike

    def price(self, sweep: Outline) -> float:
        ladders = 2 * sweep.ensemble.members if self.stage == Stage.ENSEMBLE else 1
        return ladders * max(sweep.budgets)

    def most_trials(self, sweep: Outline) -> int:
        return 1


def ensemble_seeds(sweep: Outline, succeeded: Mapping[int, bool]) -> list[int]:
    """The confirmation scenarios that get an ensemble: none where no tuning scenario can choose what to compare.

    Args:
        sweep: The sweep.
        succeeded: Whether the attack succeeded in a scenario, by seed.
    """
    if not sweep.ensemble.members or not any(succeeded[seed] for seed in sweep.seeds.tuning):
        return []
    return [seed for seed in sweep.seeds.confirmation if succeeded[seed]][: sweep.ensemble.scenarios]
