"""A study: the search over one method's settings (or all methods') for one attack, and what it chose.

What it still has to do is a pure function of its records, so "resume" and "run" are the same thing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.config.outline import Outline
from sweeps.planning.proposals import known_to
from sweeps.planning.reference_records import where_attack_succeeded
from sweeps.planning.tasks import RunStudy, RunTrial, ensemble_seeds
from sweeps.schema.stages import Stage
from sweeps.storage.base import Folder
from sweeps.storage.record_log import Trial, read_own

WORST = -1.0  # score of a diverged or failed rung, and the floor of all scores: an outlier must not rule the search

Pair = tuple[int | None, int]
"""Number of a proposal, and seed of the scenario it was evaluated on."""


class Study:
    """The state of one study, read from records alone."""

    def __init__(self, sweep: Outline, task: RunStudy, trials: Sequence[Trial], succeeded: Mapping[int, bool]) -> None:
        self.sweep, self.task = sweep, task
        self.methods, self.proposals = task.methods(sweep), task.proposals(sweep)
        self.tuning_seeds = [seed for seed in sweep.seeds.tuning if succeeded[seed]]
        self.confirmation_seeds = [seed for seed in sweep.seeds.confirmation if succeeded[seed]]
        self.ensemble_seeds = ensemble_seeds(sweep, succeeded)
        self.tuned: dict[Pair, Trial] = {}
        self.confirmed: set[Pair] = set()
        self.compared: set[Pair] = set()
        for trial in trials:
            self.add(trial)

    def add(self, trial: Trial) -> None:
        """Take note of a finished trial. Of two writers the first one counts, whose record later ones built on."""
        key = trial.proposal, trial.seed
        if trial.stage == Stage.TUNING:
            self.tuned.setdefault(key, trial)
        else:
            {Stage.CONFIRMATION: self.confirmed, Stage.ENSEMBLE: self.compared}[trial.stage].add(key)

    def tuning_left(self) -> list[tuple[int, int]]:
        """(proposal, seed) pairs to evaluate, in order; none if the attack succeeded in no tuning scenario."""
        pairs = [(n, seed) for n in range(self.proposals) for seed in self.tuning_seeds]
        return [pair for pair in pairs if pair not in self.tuned]

    def scores(self, proposal: int) -> list[float]:
        """Mean score over tuning seeds, by budget."""
        by_seed = [rung_scores(self.tuned[proposal, seed], self.sweep.budgets) for seed in self.tuning_seeds]
        return [sum(column) / len(column) for column in zip(*by_seed, strict=True)]

    def choice(self) -> dict[int, tuple[float, ...]]:
        """Chosen proposal -> the budgets it is best at (the first of equals)."""
        if not self.tuning_seeds:
            return {}
        table = [self.scores(n) for n in range(self.proposals)]
        chosen: dict[int, tuple[float, ...]] = {}
        for index, budget in enumerate(self.sweep.budgets):
            best = max(range(self.proposals), key=lambda n: (table[n][index], -n))
            chosen[best] = (*chosen.get(best, ()), budget)
        return chosen

    def confirmation_left(self) -> list[tuple[int, int]]:
        chosen = self.choice()
        pairs = [(n, seed) for seed in self.confirmation_seeds for n in chosen]
        return [pair for pair in pairs if pair not in self.confirmed]

    def ensembles_left(self) -> list[tuple[int, int]]:
        pairs = [(n, seed) for seed in self.ensemble_seeds for n in self.choice()]
        return [pair for pair in pairs if pair not in self.compared]

    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return not (self.tuning_left() or self.confirmation_left() or self.ensembles_left())

    def open(self) -> list[RunTrial]:
        """What can be done now, at once: trials whose proposal needs no score that is not there yet."""
        left = self.tuning_left()
        if left:
            done = left[0][0]  # all before this one are finished
            free = [(n, seed) for n, seed in left if known_to(self.sweep.search, n) <= done]
            return [self.task.trial(Stage.TUNING, *pair) for pair in free]
        chosen = [self.task.trial(Stage.CONFIRMATION, *pair) for pair in self.confirmation_left()]
        return chosen + [self.task.trial(Stage.ENSEMBLE, *pair) for pair in self.ensembles_left()]

    def settings_of(self, proposal: int) -> tuple[str, dict[str, Any]]:
        """(method, all settings) of a proposal that was evaluated."""
        trial = self.tuned[proposal, self.tuning_seeds[0]]
        settings = json.loads(trial.settings)
        return settings.pop("name"), settings


def rung_scores(trial: Trial, budgets: Sequence[float]) -> list[float]:
    """A trial's score at each budget, floored at WORST; WORST where it diverged or failed."""
    by_budget = {rung.budget: rung.score for rung in trial.rungs}
    found = [by_budget.get(budget) for budget in budgets]
    return [WORST if score is None else max(WORST, score) for score in found]


def load_study(sweep: Outline, sweep_dir: Folder, task: RunStudy) -> Study:
    """The study as its records and those of its references have it."""
    succeeded = where_attack_succeeded(sweep, sweep_dir, task.threat, unknown=False)
    return Study(sweep, task, read_own(sweep_dir, task.folder), succeeded)
