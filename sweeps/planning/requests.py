"""What to measure in a trial: from the state of its study to the request."""

from __future__ import annotations

from typing import Any

from sweeps.config.spec import Sweep
from sweeps.planning.proposal import Finished, Proposal
from sweeps.planning.proposals import known_to, propose
from sweeps.planning.study import Study
from sweeps.planning.tasks import RunTrial
from sweeps.schema.stages import Stage
from sweeps.trials.trial import Request
from unlearn_core.types import Unlearner


def make_request(sweep: Sweep, study: Study, trial: RunTrial) -> Request:
    """What to measure in one of the study's open trials."""
    if trial.stage == Stage.TUNING:
        name, settings = _tuned_settings(sweep, study, trial.proposal)
        return _request(trial, name, settings, budgets=sweep.budgets)
    name, chosen = study.settings_of(trial.proposal)
    chosen_for = study.choice()[trial.proposal]
    budgets = tuple(b for b in sweep.budgets if b <= max(chosen_for))
    return _request(trial, name, sweep.methods[name].build(chosen), budgets=budgets, chosen_for=chosen_for)


def _request(
    trial: RunTrial,
    method: str,
    settings: Unlearner,
    *,
    budgets: tuple[float, ...],
    chosen_for: tuple[float, ...] | None = None,
) -> Request:
    return Request(
        attack=trial.attack,
        seed=trial.seed,
        discovery_rate=trial.discovery_rate,
        stage=trial.stage,
        method=method,
        settings=settings,
        budgets=budgets,
        study=trial.folder,
        proposal=trial.proposal,
        chosen_for=chosen_for,
    )


def _tuned_settings(sweep: Sweep, study: Study, number: int) -> tuple[str, Any]:
    """(method, the method with its settings) of a proposal. Further tuning seeds repeat the settings of the first."""
    if (number, study.tuning_seeds[0]) in study.tuned:
        name, settings = study.settings_of(number)
    else:
        methods = {name: sweep.methods[name] for name in study.methods}
        name, settings = propose(sweep.search, study.task.folder, number, _history(study, number), methods)
    return name, sweep.methods[name].build(settings)


def _history(study: Study, number: int) -> list[Finished]:
    """The finished proposals that proposal `number` may depend on."""
    history = []
    for n in range(known_to(study.sweep.search, number)):
        name, settings = study.settings_of(n)
        chosen = {key: settings[key] for key in study.methods[name].space()}
        scores = study.scores(n)
        history.append(Finished(Proposal(name, chosen), sum(scores) / len(scores)))
    return history
