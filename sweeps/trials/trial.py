"""One trial: from a prepared scenario to a record with one rung per budget."""

from __future__ import annotations

import json
import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from sweeps.config.settings import as_dict
from sweeps.schema.digest import digest
from sweeps.schema.records import SCHEMA_VERSION, Rung, Trial
from sweeps.schema.stages import Stage
from sweeps.trials.device_errors import is_devices
from sweeps.trials.machine import code_version, describe_machine
from sweeps.trials.scenario_cache import Bench, ScenarioCache, unlearning_streams
from unlearn_core.metrics import attack_succeeded, efficacy, removal, score, utility_gap
from unlearn_core.registry import METRICS
from unlearn_core.scenarios.scenario import Measured, discovered_count, unlearn
from unlearn_core.types import Attack, Composite, Primary, Unlearner

Metrics = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class Request:
    """What identifies a trial inside its sweep."""

    attack: str
    seed: int
    discovery_rate: float
    stage: Stage
    method: str
    settings: Unlearner | None  # None: no method, the model as it is
    budgets: tuple[float, ...]
    study: str
    proposal: int | None = None
    chosen_for: tuple[float, ...] | None = None

    @property
    def held_out(self) -> str:
        return "validation" if self.stage == Stage.TUNING else "test"


@dataclass(frozen=True)
class Reference:
    """What the trials of one scenario are compared with, measured on the same held-out rows."""

    corrupted: Metrics
    oracle: Metrics
    retrain_rungs: Mapping[float, Metrics]  # retrain@b, by budget

    def failed(self, attack: Attack) -> list[str]:
        """The parts of an attack that did not take; the name of one that is not made of others is empty."""
        return [name for name, primary in primaries(attack).items() if not self.took(primary)]

    def took(self, primary: Primary) -> bool:
        """Whether the attack succeeded; a metric that is undefined for either model says no."""
        corrupted, oracle = self.corrupted, self.oracle
        value, error = corrupted[primary.metric], corrupted[primary.error]
        oracle_value, oracle_error = oracle[primary.metric], oracle[primary.error]
        if value is None or error is None or oracle_value is None or oracle_error is None:
            return False
        return attack_succeeded(
            corrupted=value,
            corrupted_error=error,
            oracle=oracle_value,
            oracle_error=oracle_error,
            least_gap=primary.least_gap,
        )


def primaries(attack: Attack) -> dict[str, Primary]:
    """The primary metric of each part of an attack, or its own, of the name ''."""
    return attack.primaries if isinstance(attack, Composite) else {"": attack.primary}


def trial_id(work: ScenarioCache, request: Request) -> str:
    """Content hash of everything that determines the trial's numbers."""
    return digest(
        {
            "group": work.group(request.attack),
            "seed": request.seed,
            "discovery_rate": request.discovery_rate,
            "held_out": request.held_out,
            "stage": request.stage,
            "method": as_dict(request.method, request.settings) if request.settings else request.method,
            "budgets": list(request.budgets),
            "proposal": request.proposal,
            "device": work.device.type,
        }
        | work.sweep.made_by(unlearner=[request.method], metric=METRICS.names())
        | ({"members": work.sweep.ensemble.members} if request.stage == Stage.ENSEMBLE else {})
    )


class Stopwatch:
    """Adds up the seconds spent inside a function."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, argument: Any) -> Any:
        start = time.perf_counter()
        result = self.function(argument)
        self.seconds += time.perf_counter() - start
        return result


def run_trial(work: ScenarioCache, request: Request, reference: Reference) -> Trial:
    """Unlearn and measure.

    A method that raises gives a record of status `failed` with its traceback; but for an error of the device, which
    may have been another process's doing.
    """
    return recorded(work, request, reference, lambda bench: bench.evaluator, lambda *given: run_ladder(work, *given))


def recorded(
    work: ScenarioCache,
    request: Request,
    reference: Reference,
    evaluator: Callable[[Bench], Callable[[Any], Any]],
    climb: Callable[[Bench, Request, Stopwatch], list[Measured]],
) -> Trial:
    """The record of what `climb` measures with the `evaluator`, or of why it failed.

    An error of the device is raised, for it may have been another process's doing.
    """
    start = time.perf_counter()
    bench = work.bench(request.attack, request.seed, request.held_out)
    evaluate = Stopwatch(evaluator(bench))
    try:
        measured, error = climb(bench, request, evaluate), None
    except Exception as problem:
        if is_devices(problem):
            raise
        measured, error = [], traceback.format_exc()
    return replace(
        make_record(work, bench, request, reference, measured),
        error=error,
        trial_seconds=time.perf_counter() - start,
        evaluation_seconds=evaluate.seconds,
    )


def run_ladder(
    work: ScenarioCache, bench: Bench, request: Request, evaluate: Callable[[Any], dict[str, float]]
) -> list[Measured]:
    """The rungs of a trial, by the method's own code."""
    return unlearn(
        request.settings,
        bench.corrupted.model,
        work.split(bench, request.discovery_rate),
        recipe=work.sweep.recipe,
        rng=unlearning_streams(bench),
        budgets=[share * bench.oracle.cost.flops for share in request.budgets],
        evaluator=evaluate,
    )


def make_record(
    work: ScenarioCache, bench: Bench, request: Request, reference: Reference, measured: Sequence[Measured]
) -> Trial:
    """The record of a trial that went well; the caller replaces what it knows better, such as the error."""
    sweep, attack, cost, poisons = work.sweep, bench.scenario.attack, bench.oracle.cost, len(bench.poisoned.rows)
    metric, group = attack.primary.metric, work.group(request.attack)
    failed = reference.failed(attack)
    ladder = zip(request.budgets, measured, strict=False)
    return Trial(
        schema=SCHEMA_VERSION,
        sweep=sweep.name,
        scenario_id=digest({"group": group, "seed": request.seed}),
        group_id=digest(group),
        trial_id=trial_id(work, request),
        study=request.study,
        stage=request.stage,
        held_out=request.held_out,
        dataset=sweep.dataset[0],
        model=sweep.model[0],
        attack=request.attack,
        attack_settings=json.dumps(as_dict(*sweep.attacks[request.attack])),
        regularity=attack.regularity,
        poison_fraction=attack.fraction,
        discovery_rate=max(request.discovery_rate, 1 / poisons),
        discovered=discovered_count(poisons, request.discovery_rate),
        method=request.method,
        settings=json.dumps(as_dict(request.method, request.settings) if request.settings else {}),
        proposal=request.proposal,
        chosen_for=None if request.chosen_for is None else json.dumps(request.chosen_for),
        seed=request.seed,
        unlearning_seed=unlearning_streams(bench).seed,
        primary_metric=metric,
        attack_took=not failed,
        failed_parts=",".join(filter(None, failed)) or None,
        corrupted_value=reference.corrupted[metric],
        oracle_value=reference.oracle[metric],
        corrupted_test_accuracy=reference.corrupted["test_accuracy"],
        oracle_test_accuracy=reference.oracle["test_accuracy"],
        oracle_flops=cost.flops,
        oracle_seconds=cost.seconds,
        oracle_sample_passes=cost.flops / bench.sample_pass,
        poisons=poisons,
        craft_flops=bench.crafting.get("flops"),
        craft_seconds=bench.crafting.get("seconds"),
        surrogate_flops=bench.crafting.get("surrogate_flops"),
        surrogate_seconds=bench.crafting.get("surrogate_seconds"),
        victim_flops=bench.corrupted.cost.flops,
        victim_seconds=bench.corrupted.cost.seconds,
        trial_seconds=None,
        evaluation_seconds=None,
        error=None,
        finished_at=time.time(),
        code_version=code_version(),
        machine=json.dumps(describe_machine(work.device.type, work.place.threads)),
        gpus=work.place.gpus,
        gpu_memory_retries=0,
        rungs=tuple(make_rung(work, bench, reference, not failed, share, one) for share, one in ladder),
    )


def make_rung(
    work: ScenarioCache, bench: Bench, reference: Reference, took: bool, share: float, measured: Measured
) -> Rung:
    """One rung of a record."""
    primary, oracle_cost, spent = bench.scenario.attack.primary, bench.oracle.cost, measured.rung
    metrics, tolerance = finite(measured.metrics), work.sweep.utility_tolerance
    found = outcome(metrics, reference, primary.metric, took, tolerance)
    rival = reference.retrain_rungs.get(share, {})
    rival_found = outcome(rival, reference, primary.metric, took, tolerance)
    return Rung(
        budget=share,
        budget_spent=spent.flops / oracle_cost.flops,
        flops=spent.flops,
        sample_passes=spent.flops / bench.sample_pass,
        steps=spent.steps,
        seconds=spent.seconds,
        seconds_share=spent.seconds / oracle_cost.seconds,
        peak_memory_bytes=measured.peak_memory_bytes,
        status=spent.status,
        primary_value=metrics.get(primary.metric),
        primary_error=metrics.get(primary.error),
        primary_z=metrics.get(primary.z or ""),
        removal=found.removal,
        efficacy=found.efficacy,
        test_accuracy=metrics.get("test_accuracy"),
        utility_gap=found.utility_gap,
        score=found.score,
        retrain_at_budget_value=rival.get(primary.metric),
        retrain_at_budget_removal=rival_found.removal,
        retrain_at_budget_efficacy=rival_found.efficacy,
        retrain_at_budget_test_accuracy=rival.get("test_accuracy"),
        metrics=metrics | _parts(bench, reference, metrics),
    )


def _parts(bench: Bench, reference: Reference, metrics: Metrics) -> dict[str, float | None]:
    """Removal and efficacy of every part of an attack that is made of others, as `<part>.removal` and so on."""
    attack = bench.scenario.attack
    if not isinstance(attack, Composite):
        return {}
    found: dict[str, float | None] = {}
    for name, primary in attack.primaries.items():
        own = outcome(metrics, reference, primary.metric, reference.took(primary), tolerance=0)
        found |= {f"{name}.removal": own.removal, f"{name}.efficacy": own.efficacy}
    return found


class Outcome(NamedTuple):
    """How well a model unlearned; None where undefined."""

    removal: float | None = None
    efficacy: float | None = None
    utility_gap: float | None = None
    score: float | None = None


def outcome(metrics: Metrics, reference: Reference, metric: str, took: bool, tolerance: float) -> Outcome:
    """The outcome of a measured model."""
    value, corrupted, oracle = metrics.get(metric), reference.corrupted[metric], reference.oracle[metric]
    accuracy, oracle_accuracy = metrics.get("test_accuracy"), reference.oracle["test_accuracy"]
    if value is None or accuracy is None or corrupted is None or oracle is None or oracle_accuracy is None:
        return Outcome()
    gone = removal(value=value, corrupted=corrupted, oracle=oracle, took=took)
    close = efficacy(gone)
    gap = utility_gap(oracle_accuracy=oracle_accuracy, accuracy=accuracy)
    return Outcome(gone, close, gap, score(efficacy=close, utility_gap=gap, tolerance=tolerance))


def finite(metrics: Metrics) -> dict[str, float | None]:
    """NaN (undefined) as None: the records are plain JSON."""
    return {k: None if v is None or not math.isfinite(v) else v for k, v in metrics.items()}
