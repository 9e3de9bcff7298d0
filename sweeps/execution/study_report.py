"""What a study reports while it runs: one report per proposal that was evaluated in all tuning scenarios."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from sweeps.planning.study import Study
from sweeps.schema.stages import Stage
from sweeps.storage.record_log import Trial


@dataclass(frozen=True)
class StudyReport:
    """A study once a proposal is evaluated. Higher scores are better.

    Attributes:
        study: name of the study.
        proposal: number of the proposal.
        method: the unlearner that it is for.
        settings: values of the settings that are searched.
        score: what the search maximises: the column `score`, averaged over tuning scenarios and budgets.
        best_score: the highest score of the study so far.
        efficacy: by budget, averaged over tuning scenarios; NaN if a run failed or diverged.
        utility_gap: the same.
        trials: number of recorded trials of the study.
    """

    study: str
    proposal: int
    method: str
    settings: Mapping[str, Any]
    score: float
    best_score: float
    efficacy: Mapping[str, float]
    utility_gap: Mapping[str, float]
    trials: int


Report = Callable[[StudyReport], None]


class StudyReports:
    """The reports of one study.

    Args:
        study: The study, as its records have it. Whoever adds trials to it asks for a report after each one.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._best = max(map(self._score, self._evaluated()), default=-math.inf)

    def after(self, trial: Trial) -> StudyReport | None:
        """The report after a trial was added to the study; None unless the trial completes its proposal's tuning."""
        number = trial.proposal
        if number is None or trial.stage != Stage.TUNING or not self._is_evaluated(number):
            return None
        score = self._score(number)
        self._best = max(self._best, score)
        method, settings = self._study.settings_of(number)
        return StudyReport(
            study=self._study.task.name,
            proposal=number,
            method=method,
            settings={key: settings[key] for key in self._study.methods[method].space()},
            score=score,
            best_score=self._best,
            efficacy=self._by_budget(number, "efficacy"),
            utility_gap=self._by_budget(number, "utility_gap"),
            trials=len(self._study.tuned) + len(self._study.confirmed) + len(self._study.compared),
        )

    def _evaluated(self) -> set[int]:
        return {number for number, _ in self._study.tuned if number is not None and self._is_evaluated(number)}

    def _is_evaluated(self, number: int) -> bool:
        return all((number, seed) in self._study.tuned for seed in self._study.tuning_seeds)

    def _score(self, number: int) -> float:
        return fmean(self._study.scores(number))

    def _by_budget(self, number: int, column: str) -> dict[str, float]:
        trials = [self._study.tuned[number, seed] for seed in self._study.tuning_seeds]
        budgets = self._study.sweep.budgets
        return {str(budget): fmean(_value(trial, budget, column) for trial in trials) for budget in budgets}


def _value(trial: Trial, budget: float, column: str) -> float:
    """What a trial has at a budget; NaN where it has nothing."""
    found = {rung.budget: getattr(rung, column) for rung in trial.rungs}.get(budget)
    return math.nan if found is None else float(found)
