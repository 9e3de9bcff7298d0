"""The search library behind `proposals.py`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import FrozenTrial, create_trial

from sweeps.config.choices import Method
from sweeps.config.sections import Search
from sweeps.planning.proposal import Finished, Proposal
from unlearn_core.seeding import derive
from unlearn_core.space import Choice, Int, Range

optuna.logging.set_verbosity(optuna.logging.WARNING)


def suggest(
    search: Search, folder: str, number: int, history: Sequence[Finished], methods: Mapping[str, Method]
) -> Proposal:
    """Proposal `number` of the study in `folder`, by the library's sampler from the finished proposals."""
    names = list(methods)
    sampler = _sampler(search, folder, number, methods)
    study = optuna.create_study(study_name=folder, direction="maximize", sampler=sampler)
    study.add_trials([_as_trial(finished, methods) for finished in history])
    trial = study.ask()
    name = trial.suggest_categorical("method", names) if len(names) > 1 else names[0]
    chosen = {key: _suggest(trial, _key(name, key, methods), span) for key, span in methods[name].space().items()}
    return Proposal(name, chosen)


def _sampler(search: Search, folder: str, number: int, methods: Mapping[str, Method]) -> optuna.samplers.BaseSampler:
    """Every argument is given: the library's defaults changed between versions, and with them the algorithm."""
    seed = derive(search.seed, folder, number) % 2**32
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    return optuna.samplers.TPESampler(
        seed=seed,
        n_startup_trials=search.startup,
        n_ei_candidates=24,
        multivariate=len(methods) == 1,  # a searched method makes the space conditional
        constant_liar=False,
    )


def _key(method: str, setting: str, methods: Mapping[str, Method]) -> str:
    return setting if len(methods) == 1 else f"{method}.{setting}"


def _suggest(trial: optuna.Trial, key: str, span: Range) -> Any:
    if isinstance(span, Choice):
        return json.loads(trial.suggest_categorical(key, [json.dumps(option) for option in span.options]))
    if isinstance(span, Int):
        return trial.suggest_int(key, span.low, span.high, log=span.log)
    return trial.suggest_float(key, span.low, span.high, log=span.log)


def _distribution(span: Range) -> BaseDistribution:
    if isinstance(span, Choice):
        return CategoricalDistribution([json.dumps(option) for option in span.options])
    if isinstance(span, Int):
        return IntDistribution(span.low, span.high, log=span.log)
    return FloatDistribution(span.low, span.high, log=span.log)


def _as_trial(finished: Finished, methods: Mapping[str, Method]) -> FrozenTrial:
    """A finished proposal as the library stores it."""
    name, chosen = finished.proposal
    space = methods[name].space()
    params: dict[str, Any] = {"method": name} if len(methods) > 1 else {}
    spans: dict[str, BaseDistribution] = {"method": CategoricalDistribution(list(methods))} if len(methods) > 1 else {}
    for key, span in space.items():
        params[_key(name, key, methods)] = json.dumps(chosen[key]) if isinstance(span, Choice) else chosen[key]
        spans[_key(name, key, methods)] = _distribution(span)
    return create_trial(params=params, distributions=spans, value=finished.value)
