"""Doing what the records of a cell say is missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sweeps.cell import Cell, reference_trials, stage_of
from sweeps.ensemble import REFERENCES, measure_ensembles, run_ensemble_trial, train_members
from sweeps.files import Folder
from sweeps.proposals import proposal_count
from sweeps.references import measure_references, read_reference, reference_methods
from sweeps.spec import Sweep
from sweeps.store import CellWriter, Trial, read_cell
from sweeps.study import confirmation_request, load_study, tuning_request
from sweeps.trial import Request, run_trial
from sweeps.workbench import Workbench


def run_cell(work: Workbench, sweep_dir: Folder, cell: Cell, on_record: Callable[[Trial], None] | None = None) -> int:
    """Do what the cell's records say is missing; returns the number of new trials."""
    done = {"reference": run_references, "study": run_study, "ensemble": run_ensemble}[cell.kind]
    return done(work, sweep_dir, cell, on_record or (lambda _: None))


def references_missing(sweep_dir: Folder, cell: Cell, sweep: Sweep) -> bool:
    wanted = reference_methods(stage_of(sweep, cell), cell.discovery_rate)
    return not set(wanted) <= {trial["method"] for trial in read_cell(sweep_dir, cell.name)}


def run_references(work: Workbench, sweep_dir: Folder, cell: Cell, on_record: Callable[[Trial], None]) -> int:
    """Train and measure what a scenario's trials are compared with."""
    there = {trial["trial_id"] for trial in read_cell(sweep_dir, cell.name)}
    if not references_missing(sweep_dir, cell, work.sweep):
        return 0
    stage, rate = stage_of(work.sweep, cell), cell.discovery_rate
    trials = measure_references(work, cell.attack, cell.seed, stage=stage, discovery_rate=rate, study=cell.name)
    return _append(sweep_dir, cell, [trial for trial in trials if trial["trial_id"] not in there], on_record)


def ensemble_missing(sweep_dir: Folder, cell: Cell) -> bool:
    return not set(REFERENCES) <= {trial["method"] for trial in read_cell(sweep_dir, cell.name)}


def run_ensemble(work: Workbench, sweep_dir: Folder, cell: Cell, on_record: Callable[[Trial], None]) -> int:
    """Train a member of an ensemble, which is recorded nowhere but in the store; or measure the ensemble."""
    if cell.member >= 0:
        train_members(work, cell.attack, cell.seed, cell.member)
        return 0
    there = {trial["trial_id"] for trial in read_cell(sweep_dir, cell.name)}
    if not ensemble_missing(sweep_dir, cell):
        return 0
    reference = read_reference(reference_trials(work.sweep, sweep_dir, cell)[cell.seed])
    base = {"attack": cell.attack, "seed": cell.seed, "discovery_rate": cell.discovery_rate, "study": cell.name}
    trials = measure_ensembles(work, base, reference)
    return _append(sweep_dir, cell, [trial for trial in trials if trial["trial_id"] not in there], on_record)


def run_study(work: Workbench, sweep_dir: Folder, cell: Cell, on_record: Callable[[Trial], None]) -> int:
    """Propose and evaluate on the tuning scenarios, then confirm the choice on fresh ones."""
    sweep = work.sweep
    references = {s: read_reference(t) for s, t in reference_trials(sweep, sweep_dir, cell).items()}
    writer, study, count = CellWriter(sweep_dir, cell.name), load_study(sweep, sweep_dir, cell), 0
    proposals = proposal_count(sweep.search, study.methods)

    def record(request: Request) -> None:
        nonlocal count
        run = run_ensemble_trial if request.stage == "ensemble" else run_trial
        trial = run(work, request, references[request.seed])
        writer.append(trial)
        on_record(trial)
        count += 1
        if request.stage == "tuning":
            study.tuned[trial["proposal"], trial["seed"]] = trial

    for number, seed in study.tuning_left(proposals):
        record(tuning_request(study, number, seed))
    for number, seed in study.confirmation_left(proposals):
        record(confirmation_request(study, number, seed, proposals))
    for number, seed in study.ensembles_left(proposals):
        record(confirmation_request(study, number, seed, proposals, stage="ensemble"))
    return count


def _append(sweep_dir: Folder, cell: Cell, trials: Sequence[Trial], on_record: Callable[[Trial], None]) -> int:
    writer = CellWriter(sweep_dir, cell.name)
    for trial in trials:
        writer.append(trial)
        on_record(trial)
    return len(trials)
