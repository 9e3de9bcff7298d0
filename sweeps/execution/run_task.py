"""How each kind of task runs: it does what its records lack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import singledispatch

from sweeps.execution.crash_counter import Attempts
from sweeps.execution.limits import Guard, share_limit
from sweeps.execution.study_report import Report, StudyReports
from sweeps.planning.missing import ensemble_missing, references_missing
from sweeps.planning.reference_records import await_references, reference_trials
from sweeps.planning.requests import make_request
from sweeps.planning.study import load_study
from sweeps.planning.tasks import (
    CraftPoison,
    MeasureEnsemble,
    MeasureReferences,
    RunStudy,
    RunTrial,
    Task,
    TrainMember,
    TrainModel,
)
from sweeps.storage.base import Folder
from sweeps.storage.record_log import RecordWriter, Trial, read_own
from sweeps.trials.ensemble import measure_ensembles, train_members
from sweeps.trials.references import measure_references, read_reference
from sweeps.trials.scenario_cache import ScenarioCache


@dataclass(frozen=True)
class Worker:
    """What a task has at hand while it runs.

    Attributes:
        cache: data, models and evaluators of the sweep's scenarios.
        sweep_dir: where the sweep keeps its records.
        stopping: once it says yes, nothing more begins.
        attempts: counts processes that are lost at the same trial; without it they are not counted.
        report: called with the report of a study after each proposal that is evaluated.
    """

    cache: ScenarioCache
    sweep_dir: Folder
    stopping: Callable[[], bool] = lambda: False
    attempts: Attempts | None = None
    report: Report | None = None


def run_task(task: Task, worker: Worker) -> int:
    """Do what the records of a task lack.

    Returns:
        The number of new trials.

    Raises:
        GpuShareTooSmall: there was not enough memory on a share of a GPU.
    """
    if worker.stopping():
        return 0
    with share_limit(worker.cache.place, task):
        return runner(task, worker)


@singledispatch
def runner(task: Task, worker: Worker) -> int:
    """Do what is missing of a task; a function is registered for each kind."""
    raise NotImplementedError(f"nothing says how {type(task).__name__} runs")


@runner.register
def _craft_poison(task: CraftPoison, worker: Worker) -> int:
    worker.cache.craft(task.attack, task.seed)
    return 0


@runner.register
def _train_model(task: TrainModel, worker: Worker) -> int:
    worker.cache.train(task.attack, task.seed, task.role, task.discovery_rate)
    return 0


@runner.register
def _train_member(task: TrainMember, worker: Worker) -> int:
    train_members(worker.cache, task.attack, task.seed, task.member)
    return 0


@runner.register
def _measure_references(task: MeasureReferences, worker: Worker) -> int:
    there = _recorded(task, worker)
    if not references_missing(worker.sweep_dir, task, worker.cache.sweep):
        return 0
    stage, rate = task.stage(worker.cache.sweep), task.discovery_rate
    trials = measure_references(
        worker.cache, task.attack, task.seed, stage=stage, discovery_rate=rate, study=task.folder
    )
    return _append(task, worker, [trial for trial in trials if trial.trial_id not in there])


@runner.register
def _measure_ensemble(task: MeasureEnsemble, worker: Worker) -> int:
    there = _recorded(task, worker)
    if not ensemble_missing(worker.sweep_dir, task):
        return 0
    reference = read_reference(reference_trials(worker.cache.sweep, worker.sweep_dir, task.threat)[task.seed])
    base = {"attack": task.attack, "seed": task.seed, "discovery_rate": task.discovery_rate, "study": task.folder}
    trials = measure_ensembles(worker.cache, base, reference)
    return _append(task, worker, [trial for trial in trials if trial.trial_id not in there])


@runner.register
def _run_study(task: RunStudy, worker: Worker) -> int:
    return _run_trials(task, task, worker)


@runner.register
def _run_trial(task: RunTrial, worker: Worker) -> int:
    return _run_trials(task.study, task, worker)


def _run_trials(study_task: RunStudy, task: RunStudy | RunTrial, worker: Worker) -> int:
    """Propose and evaluate on the tuning scenarios, then confirm the choice on fresh ones; or one trial of that."""
    sweep, folder = worker.cache.sweep, worker.sweep_dir
    measured = await_references(sweep, folder, study_task.threat)
    references = {seed: read_reference(trials) for seed, trials in measured.items()}
    study, count = load_study(sweep, folder, study_task), 0
    guard = Guard(worker.cache, task, RecordWriter(folder, task.folder), worker.attempts)
    reports = StudyReports(study)
    while left := [trial for trial in study.open() if task in (study_task, trial)]:
        for trial in left:
            if worker.stopping():
                return count
            request = make_request(sweep, study, trial)
            recorded = guard.run(trial, request, references[request.seed])
            study.add(recorded)
            count += 1
            _report(task, worker, reports, recorded)
    return count


def _report(task: RunStudy | RunTrial, worker: Worker, reports: StudyReports, recorded: Trial) -> None:
    """Report the proposal of a trial, if that was the last of its tuning."""
    if worker.report is None:
        return
    if isinstance(task, RunTrial):  # other workers are at other trials of the study
        reports = StudyReports(load_study(worker.cache.sweep, worker.sweep_dir, task.study))
    found = reports.after(recorded)
    if found is not None:
        worker.report(found)


def _recorded(task: Task, worker: Worker) -> set[str]:
    """Ids of the trials in the task's folder."""
    return {trial.trial_id for trial in read_own(worker.sweep_dir, task.folder)}


def _append(task: Task, worker: Worker, trials: Sequence[Trial]) -> int:
    writer = RecordWriter(worker.sweep_dir, task.folder)
    for trial in trials:
        writer.append(replace(trial, gpu_memory_retries=int(task.whole_gpu)))
    return len(trials)
