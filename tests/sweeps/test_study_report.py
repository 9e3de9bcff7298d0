"""What a study reports, from made-up records."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest

from sweeps.config.spec import Sweep
from sweeps.execution.study_report import StudyReports
from sweeps.planning.study import WORST, Study
from sweeps.planning.tasks import RunStudy
from sweeps.schema.records import Trial
from tests.sweeps.tiny import bare_trial, tiny

BUDGETS = (0.1, 0.3)


def sweep_of(**changes: Any) -> Sweep:
    return tiny(methods=[{"name": "gd", "fixed": {"schedule": "constant"}}], budgets=list(BUDGETS), **changes)


def trial(proposal: int, seed: int, rungs: Mapping[float, tuple[float, float, float]], stage: str = "tuning") -> Trial:
    """A record; by budget: score, efficacy and utility gap."""
    names = ("score", "efficacy", "utility_gap")
    settings = {"name": "gd", "lr": 0.5 + proposal, "epochs": 3, "schedule": "constant"}
    made = [{"budget": b, "status": "ok", **dict(zip(names, values, strict=True))} for b, values in rungs.items()]
    return bare_trial(proposal, stage=stage, seed=seed, settings=json.dumps(settings), rungs=made)


def reports_of(*tuning: int) -> tuple[Study, StudyReports]:
    sweep = sweep_of(seeds={"tuning": list(tuning), "confirmation": [1]})
    study = Study(sweep, RunStudy("badnets", 1.0, "gd"), [], dict.fromkeys((*tuning, 1), True))
    return study, StudyReports(study)


def test_a_proposal_is_reported_with_its_means() -> None:
    study, reports = reports_of(0, 5)
    first = trial(0, 0, {0.1: (0.2, 0.4, 0.01), 0.3: (0.6, 0.8, 0.02)})
    study.add(first)
    assert reports.after(first) is None  # one of two scenarios
    second = trial(0, 5, {0.1: (0.4, 0.6, 0.03), 0.3: (0.8, 1.0, 0.04)})
    study.add(second)
    found = reports.after(second)
    assert found is not None
    assert found.score == found.best_score == pytest.approx((0.2 + 0.6 + 0.4 + 0.8) / 4)
    assert found.efficacy == pytest.approx({"0.1": 0.5, "0.3": 0.9})
    assert found.utility_gap == pytest.approx({"0.1": 0.02, "0.3": 0.03})
    assert (found.proposal, found.method, found.trials) == (0, "gd", 2)
    assert found.settings == {"lr": 0.5, "epochs": 3}  # the fixed one is no choice


def test_the_best_score_is_kept_and_confirmation_reports_nothing() -> None:
    study, reports = reports_of(0)
    bests = []
    for number, score in enumerate((0.1, 0.7, 0.3)):
        made = trial(number, 0, {b: (score, score, 0.0) for b in BUDGETS})
        study.add(made)
        found = reports.after(made)
        assert found is not None and found.score == pytest.approx(score)
        bests.append(found.best_score)
    assert bests == pytest.approx([0.1, 0.7, 0.7])
    confirmed = trial(1, 1, {b: (0.9, 0.9, 0.0) for b in BUDGETS}, stage="confirmation")
    study.add(confirmed)
    assert reports.after(confirmed) is None


def test_a_study_that_goes_on_knows_its_best() -> None:
    study, _ = reports_of(0)
    study.add(trial(0, 0, {b: (0.7, 0.7, 0.0) for b in BUDGETS}))
    late = trial(1, 0, {b: (0.1, 0.1, 0.0) for b in BUDGETS})
    reports = StudyReports(study)
    study.add(late)
    found = reports.after(late)
    assert found is not None
    assert (found.score, found.best_score) == pytest.approx((0.1, 0.7))


def test_what_failed_has_no_efficacy_and_the_worst_score() -> None:
    study, reports = reports_of(0)
    failed = trial(0, 0, {0.1: (0.5, 0.5, 0.0)})  # nothing at 0.3
    study.add(failed)
    found = reports.after(failed)
    assert found is not None
    assert found.score == pytest.approx((0.5 + WORST) / 2)
    assert found.efficacy["0.1"] == 0.5
    assert math.isnan(found.efficacy["0.3"]) and math.isnan(found.utility_gap["0.3"])
