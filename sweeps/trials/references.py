"""References of a scenario: what its trials are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sweeps.schema.records import Trial
from sweeps.schema.stages import Stage
from sweeps.trials.reference_names import reference_methods
from sweeps.trials.scenario_cache import ScenarioCache
from sweeps.trials.trial import Reference, Request, finite, make_record, run_ladder
from unlearn_core.registry import UNLEARNERS
from unlearn_core.scenarios.scenario import Measured
from unlearn_core.training.budget import Rung


def measure_references(
    work: ScenarioCache, attack: str, seed: int, *, stage: Stage, discovery_rate: float, study: str
) -> list[Trial]:
    """The reference trials of a scenario, as `reference_methods` names them."""
    budgets = work.sweep.budgets
    base: dict[str, Any] = {
        "attack": attack, "seed": seed, "discovery_rate": discovery_rate, "stage": stage, "study": study
    }  # fmt: skip
    first = Request(**base, method="retrain_at_budget", settings=UNLEARNERS.get("retrain_at_budget")(), budgets=budgets)
    bench = work.bench(attack, seed, first.held_out)
    corrupted, oracle = finite(bench.evaluator(bench.corrupted.model)), finite(bench.evaluator(bench.oracle.model))
    ladder = run_ladder(work, bench, first, bench.evaluator)
    rungs = {share: finite(m.metrics) for share, m in zip(budgets, ladder, strict=True)}
    reference = Reference(corrupted, oracle, rungs)
    trained = {"none": (corrupted, Rung(0, 0, 0, 0.0, "finished")), "oracle": (oracle, bench.oracle.cost)}
    rates = {"retrain": 1.0, "retrain_discovered": discovery_rate}
    for method in [name for name in reference_methods(stage, discovery_rate) if name in rates]:
        model, cost = work.retrained(attack, seed, rates[method])
        trained[method] = (finite(bench.evaluator(model)), cost)
    trials = [make_record(work, bench, first, reference, ladder)]
    for method, (metrics, cost) in trained.items():
        request = Request(**base, method=method, settings=None, budgets=(0.0 if method == "none" else 1.0,))
        trials.append(make_record(work, bench, request, reference, [Measured(cost, dict(metrics), None)]))  # type: ignore[arg-type]
    return [replace(trial, stage=Stage.REFERENCE) for trial in trials]


def read_reference(trials: Sequence[Trial]) -> Reference:
    """The reference of a scenario from its reference trials."""
    rungs = {trial.method: trial.rungs for trial in trials}
    corrupted, oracle = (rungs[name][0].metrics for name in ("none", "oracle"))
    return Reference(corrupted, oracle, {rung.budget: rung.metrics for rung in rungs["retrain_at_budget"]})
