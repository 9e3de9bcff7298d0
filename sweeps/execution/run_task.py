"""Doing what the records of a cell say is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from sweeps.execution.crash_counter import Attempts
from sweeps.execution.limits import Guard, crowding
from sweeps.planning.missing import ensemble_missing, references_missing
from sweeps.planning.proposals import proposal_count
from sweeps.planning.study import load_study, make_request
from sweeps.planning.tasks import Cell, await_references, reference_trials, stage_of
from sweeps.storage.files import Folder
from sweeps.storage.record_log import CellWriter, Trial, read_own
from sweeps.trials.ensemble import measure_ensembles, train_members
from sweeps.trials.references import measure_references, read_reference
from sweeps.trials.scenario_cache import ScenarioCache


def run_cell(
    work: ScenarioCache,
    sweep_dir: Folder,
    cell: Cell,
    stopping: Callable[[], bool] = lambda: False,
    attempts: Attempts | None = None,
) -> int:
    """Do what the cell's records say is missing; returns the number of new trials. Once `stopping`, nothing more is
    begun. Raises GpuShareTooSmall if there was not enough memory on a share of a GPU."""
    if stopping():
        return 0
    with crowding(work.place, cell):
        if cell.kind == "study":
            return run_study(work, sweep_dir, cell, stopping, attempts)
        done = {"training": train, "reference": run_references, "ensemble": run_ensemble}[cell.kind]
        return done(work, sweep_dir, cell)


def train(work: ScenarioCache, sweep_dir: Folder, cell: Cell) -> int:
    """Make what a scenario's references need; it is recorded nowhere but in the store."""
    work.train(cell.attack, cell.seed, cell.role, cell.discovery_rate)
    return 0


def run_references(work: ScenarioCache, sweep_dir: Folder, cell: Cell) -> int:
    """Train and measure what a scenario's trials are compared with."""
    there = {trial.trial_id for trial in read_own(sweep_dir, cell.folder)}
    if not references_missing(sweep_dir, cell, work.sweep):
        return 0
    stage, rate = stage_of(work.sweep, cell), cell.discovery_rate
    trials = measure_references(work, cell.attack, cell.seed, stage=stage, discovery_rate=rate, study=cell.folder)
    return _append(sweep_dir, cell, [trial for trial in trials if trial.trial_id not in there])


def run_ensemble(work: ScenarioCache, sweep_dir: Folder, cell: Cell) -> int:
    """Train a member of an ensemble, which is recorded nowhere but in the store; or measure the ensemble."""
    if cell.member >= 0:
        train_members(work, cell.attack, cell.seed, cell.member)
        return 0
    there = {trial.trial_id for trial in read_own(sweep_dir, cell.folder)}
    if not ensemble_missing(sweep_dir, cell):
        return 0
    reference = read_reference(reference_trials(work.sweep, sweep_dir, cell)[cell.seed])
    base = {"attack": cell.attack, "seed": cell.seed, "discovery_rate": cell.discovery_rate, "study": cell.folder}
    trials = measure_ensembles(work, base, reference)
    return _append(sweep_dir, cell, [trial for trial in trials if trial.trial_id not in there])


def run_study(
    work: ScenarioCache, sweep_dir: Folder, cell: Cell, stopping: Callable[[], bool], attempts: Attempts | None
) -> int:
    """Propose and evaluate on the tuning scenarios, then confirm the choice on fresh ones; or one trial of that."""
    sweep, whole = work.sweep, cell.whole
    references = {s: read_reference(t) for s, t in await_references(sweep, sweep_dir, whole).items()}
    study, count = load_study(sweep, sweep_dir, whole), 0
    guard = Guard(work, cell, CellWriter(sweep_dir, cell.folder), attempts)
    proposals = proposal_count(sweep.search, study.methods)
    single = replace(cell, alone=False) if cell.proposal >= 0 else None
    while left := [trial for trial in study.open(proposals) if single in (None, trial)]:
        for each in left:
            if stopping():
                return count
            request = make_request(study, each, proposals)
            study.add(guard.run(each, request, references[request.seed]))
            count += 1
    return count


def _append(sweep_dir: Folder, cell: Cell, trials: Sequence[Trial]) -> int:
    writer = CellWriter(sweep_dir, cell.folder)
    for trial in trials:
        writer.append(replace(trial, gpu_memory_retries=int(cell.alone)))
    return len(trials)
