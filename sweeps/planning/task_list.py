"""The tasks of a sweep. What these need first, such as trained models, the tasks themselves say."""

from __future__ import annotations

from sweeps.config.outline import Outline
from sweeps.planning.reference_records import where_attack_succeeded
from sweeps.planning.tasks import BEST, MeasureEnsemble, MeasureReferences, RunStudy, Threat, ensemble_seeds
from sweeps.storage.base import Folder


def threats(sweep: Outline) -> list[Threat]:
    """Every attack at every discovery rate."""
    return [Threat(attack, rate) for attack in sweep.attacks for rate in sweep.discovery_rates]


def reference_tasks(sweep: Outline) -> list[MeasureReferences]:
    """One task per scenario and discovery rate."""
    return [MeasureReferences(*threat, seed) for threat in threats(sweep) for seed in sweep.scenario_seeds]


def study_tasks(sweep: Outline) -> list[RunStudy]:
    """One task per attack, discovery rate and method."""
    methods = [BEST] if sweep.search.mode == "best" and sweep.methods else list(sweep.methods)
    return [RunStudy(*threat, method) for threat in threats(sweep) for method in methods]


def ensemble_tasks(sweep: Outline, sweep_dir: Folder) -> list[MeasureEnsemble]:
    """One per threat and scenario that gets an ensemble. An attack without references counts as successful."""
    tasks = []
    for threat in threats(sweep) if sweep.methods else []:
        succeeded = where_attack_succeeded(sweep, sweep_dir, threat, unknown=True)
        tasks += [MeasureEnsemble(*threat, seed) for seed in ensemble_seeds(sweep, succeeded)]
    return tasks
