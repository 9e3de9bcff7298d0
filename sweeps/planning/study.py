"""A study: the search over one method's settings (or all methods') for one attack, and what it chose.

What it still has to do is a pure function of its records, so "resume" and "run" are the same thing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sweeps.config.spec import Sweep
from sweeps.planning.proposals import Finished, Proposal, known_to
from sweeps.planning.reference_records import where_attack_succeeded
from sweeps.planning.tasks import RunStudy, RunTrial, ensemble_seeds
from sweeps.schema.stages import Stage
from sweeps.storage.base import Folder
from sweeps.storage.record_log import Trial, read_own
from sweeps.trials.trial import Request

WORST = -1.0  # score of a diverged or failed rung, and the floor of all scores: an outlier must not rule the search


class Study:
    """The state of one study, read from records alone."""

    def __init__(self, sweep: Sweep, task: RunStudy, trials: Sequence[Trial], succeeded: Mapping[int, bool]) -> None:
        self.sweep, self.task = sweep, task
        self.methods = task.methods(sweep)
        self.tuning_seeds = [seed for seed in sweep.seeds.tuning if succeeded[seed]]
        self.confirmation_seeds = [seed for seed in sweep.seeds.confirmation if succeeded[seed]]
        self.ensemble_seeds = ensemble_seeds(sweep, succeeded)
        self.tuned: dict[tuple[int, int], Trial] = {}
        self.confirmed: set[tuple[int, int]] = set()
        self.compared: set[tuple[int, int]] = set()
        for trial in trials:
            self.add(trial)

    def add(self, trial: Trial) -> None:
        """Take note of a finished trial. Of two writers the first one counts, whose record later ones built on."""
        key = trial["proposal"], trial["seed"]
        if trial["stage"] == Stage.TUNING:
            self.tuned.setdefault(key, trial)
        else:
            {Stage.CONFIRMATION: self.confirmed, Stage.ENSEMBLE: self.compared}[trial["stage"]].add(key)

    def tuning_left(self, proposals: int) -> list[tuple[int, int]]:
        """(proposal, seed) pairs to evaluate, in order; none if the attack succeeded in no tuning scenario."""
        pairs = [(n, seed) for n in range(proposals) for seed in self.tuning_seeds]
        return [pair for pair in pairs if pair not in self.tuned]

    def scores(self, proposal: int) -> list[float]:
        """Mean score over tuning seeds, by budget."""
        by_seed = [rung_scores(self.tuned[proposal, seed], self.sweep.budgets) for seed in self.tuning_seeds]
        return [sum(column) / len(column) for column in zip(*by_seed, strict=True)]

    def choice(self, proposals: int) -> dict[int, tuple[float, ...]]:
        """Chosen proposal -> the budgets it is best at (the first of equals)."""
        if not self.tuning_seeds:
            return {}
        table = [self.scores(n) for n in range(proposals)]
        chosen: dict[int, tuple[float, ...]] = {}
        for index, budget in enumerate(self.sweep.budgets):
            best = max(range(proposals), key=lambda n: (table[n][index], -n))
            chosen[best] = (*chosen.get(best, ()), budget)
        return chosen

    def confirmation_left(self, proposals: int) -> list[tuple[int, int]]:
        chosen = self.choice(proposals)
        pairs = [(n, seed) for seed in self.confirmation_seeds for n in chosen]
        return [pair for pair in pairs if pair not in self.confirmed]

    def ensembles_left(self, proposals: int) -> list[tuple[int, int]]:
        pairs = [(n, seed) for seed in self.ensemble_seeds for n in self.choice(proposals)]
        return [pair for pair in pairs if pair not in self.compared]

    def finished(self, proposals: int) -> bool:
        """Whether nothing is left to do."""
        return not (self.tuning_left(proposals) or self.confirmation_left(proposals) or self.ensembles_left(proposals))

    def open(self, proposals: int) -> list[RunTrial]:
        """What can be done now, at once: trials whose proposal needs no score that is not there yet."""
        left = self.tuning_left(proposals)
        if left:
            done = left[0][0]  # all before this one are finished
            free = [(n, seed) for n, seed in left if known_to(self.sweep.search, n) <= done]
            return [self.task.trial(Stage.TUNING, *pair) for pair in free]
        chosen = [self.task.trial(Stage.CONFIRMATION, *pair) for pair in self.confirmation_left(proposals)]
        return chosen + [self.task.trial(Stage.ENSEMBLE, *pair) for pair in self.ensembles_left(proposals)]

    def settings_of(self, proposal: int) -> tuple[str, dict[str, Any]]:
        """(method, all settings) of a proposal that was evaluated."""
        trial = self.tuned[proposal, self.tuning_seeds[0]]
        settings = json.loads(trial["settings"])
        return settings.pop("name"), settings


def rung_scores(trial: Trial, budgets: Sequence[float]) -> list[float]:
    """A trial's score at each budget, floored at WORST; WORST where it diverged or failed."""
    by_budget = {rung["budget"]: rung["score"] for rung in trial["rungs"]}
    found = [by_budget.get(budget) for budget in budgets]
    return [WORST if score is None else max(WORST, score) for score in found]


def load_study(sweep: Sweep, sweep_dir: Folder, task: RunStudy) -> Study:
    """The study as its records and those of its references have it."""
    succeeded = where_attack_succeeded(sweep, sweep_dir, task.threat, unknown=False)
    return Study(sweep, task, read_own(sweep_dir, task.folder), succeeded)


def make_request(study: Study, trial: RunTrial, proposals: int) -> Request:
    """What to do for one of the study's open trials; `proposals` is how many the study makes."""
    tuning = trial.stage == Stage.TUNING
    return _tuning_request(study, trial) if tuning else _confirmation_request(study, trial, proposals)


def _tuning_request(study: Study, trial: RunTrial) -> Request:
    number, seed, first = trial.proposal, trial.seed, study.tuning_seeds[0]
    if (number, first) in study.tuned:
        name, settings = study.settings_of(number)
        method = study.methods[name].build(settings)
    else:
        name, method = _proposed(study, number)
    shared = _shared_fields(study, number, seed)
    return Request(**shared, stage=Stage.TUNING, method=name, settings=method, budgets=study.sweep.budgets)


def _proposed(study: Study, number: int) -> tuple[str, Any]:
    from sweeps.planning.optuna_search import (
        propose,  # takes a second to import; a study that is all tuned does not need it
    )

    history = []
    for n in range(known_to(study.sweep.search, number)):
        name, settings = study.settings_of(n)
        chosen = {key: settings[key] for key in study.methods[name].space()}
        scores = study.scores(n)
        history.append(Finished(Proposal(name, chosen), sum(scores) / len(scores)))
    name, chosen = propose(study.sweep.search, study.task.folder, number, history, study.methods)
    return name, study.methods[name].build(chosen)


def _confirmation_request(study: Study, trial: RunTrial, proposals: int) -> Request:
    """The chosen proposal up to the largest budget it was chosen for, on one model or (stage `ensemble`) on many."""
    name, settings = study.settings_of(trial.proposal)
    chosen_for = study.choice(proposals)[trial.proposal]
    return Request(
        **_shared_fields(study, trial.proposal, trial.seed),
        stage=trial.stage,
        method=name,
        settings=study.methods[name].build(settings),
        budgets=tuple(b for b in study.sweep.budgets if b <= max(chosen_for)),
        chosen_for=chosen_for,
    )


def _shared_fields(study: Study, number: int, seed: int) -> dict[str, Any]:
    """What every request for a proposal on a scenario says."""
    task = study.task
    where = {"attack": task.attack, "seed": seed, "discovery_rate": task.discovery_rate}
    return where | {"study": task.folder, "proposal": number}
