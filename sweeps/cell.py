"""A cell: the unit that one worker walks through: the references of one scenario, one study, or part of an ensemble.

What a cell still has to do is a pure function of its records, so "resume" and "run" are the same thing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.ensemble import REFERENCES, measure_ensembles, run_ensemble_trial, train_members
from sweeps.proposals import Finished, Proposal, proposal_count
from sweeps.spec import SINGLE, Method, Sweep
from sweeps.store import CellWriter, Trial, read_cell
from sweeps.trial import Request, measure_references, read_reference, reference_methods, run_trial
from sweeps.workbench import Workbench

WORST = -1.0  # score of a diverged or failed rung, and the floor of all scores: an outlier must not rule the search


@dataclass(frozen=True)
class Cell:
    """kind: `reference` (one scenario), `study` (one attack and method, or `best` over all methods), or `ensemble`:
    training the models of one `member` of a scenario's ensemble, or, without a member, measuring its references."""

    kind: str
    attack: str
    discovery_rate: float
    method: str = ""
    seed: int = -1
    member: int = -1

    @property
    def name(self) -> str:
        """Unique in the sweep, and safe as a folder name."""
        share = "single" if self.discovery_rate == SINGLE else repr(self.discovery_rate)
        rate = "" if self.discovery_rate == 1 else f"--found{share}"
        part = f"member{self.member}" if self.member >= 0 else f"{self.kind}s"
        tail = self.method if self.kind == "study" else f"{part}--seed{self.seed}"
        return f"{self.attack}--{tail}{rate}"


def reference_cells(sweep: Sweep) -> list[Cell]:
    seeds = (*sweep.seeds.confirmation, *sweep.seeds.tuning)
    return [
        Cell("reference", attack, rate, seed=seed)
        for attack in sweep.attacks
        for rate in sweep.discovery_rates
        for seed in seeds
    ]


def study_cells(sweep: Sweep) -> list[Cell]:
    methods = ["best"] if sweep.search.mode == "best" else list(sweep.methods)
    return [
        Cell("study", attack, rate, method)
        for attack in sweep.attacks
        for rate in sweep.discovery_rates
        for method in methods
    ]


def ensemble_cells(sweep: Sweep, sweep_dir: Path) -> list[Cell]:
    """One per scenario that gets an ensemble and discovery rate; where an attack has no references yet, it is taken to
    take."""
    cells = []
    for study in dict.fromkeys((cell.attack, cell.discovery_rate) for cell in study_cells(sweep)):
        took = attack_took(sweep, sweep_dir, *study, unknown=True)
        cells += [Cell("ensemble", *study, seed=seed) for seed in ensemble_seeds(sweep, took)]
    return cells


def ensemble_seeds(sweep: Sweep, took: Mapping[int, bool]) -> list[int]:
    """The confirmation scenarios that get an ensemble; none where no tuning scenario can choose what to compare."""
    if not sweep.ensemble.members or not any(took[seed] for seed in sweep.seeds.tuning):
        return []
    return [seed for seed in sweep.seeds.confirmation if took[seed]][: sweep.ensemble.scenarios]


def methods_of(sweep: Sweep, cell: Cell) -> dict[str, Method]:
    """The methods that a study searches over."""
    return dict(sweep.methods) if cell.method == "best" else {cell.method: sweep.methods[cell.method]}


class Study:
    """The state of one study, read from records alone."""

    def __init__(self, sweep: Sweep, cell: Cell, trials: Sequence[Trial], took: Mapping[int, bool]) -> None:
        self.sweep, self.cell = sweep, cell
        self.methods = methods_of(sweep, cell)
        self.tuning_seeds = [seed for seed in sweep.seeds.tuning if took[seed]]
        self.confirmation_seeds = [seed for seed in sweep.seeds.confirmation if took[seed]]
        self.ensemble_seeds = ensemble_seeds(sweep, took)
        first = reversed(trials)  # of two writers the first one counts, whose record the later ones built on
        self.tuned = {(t["proposal"], t["seed"]): t for t in first if t["stage"] == "tuning"}
        self.confirmed = {(t["proposal"], t["seed"]) for t in trials if t["stage"] == "confirmation"}
        self.compared = {(t["proposal"], t["seed"]) for t in trials if t["stage"] == "ensemble"}

    def tuning_left(self, proposals: int) -> list[tuple[int, int]]:
        """(proposal, seed) pairs to evaluate, in order; none if the attack took in no tuning scenario."""
        pairs = [(n, seed) for n in range(proposals) for seed in self.tuning_seeds]
        return [pair for pair in pairs if pair not in self.tuned]

    def scores(self, proposal: int) -> list[float]:
        """Mean score over tuning seeds, by budget."""
        by_seed = [rung_scores(self.tuned[proposal, seed], self.sweep.budgets) for seed in self.tuning_seeds]
        return [sum(column) / len(column) for column in zip(*by_seed, strict=True)]

    def choice(self, proposals: int) -> dict[int, tuple[float, ...]]:
        """Chosen proposal -> the budgets it is best at (the first of equals)."""
        if not self.tuning_seeds:
            return {}
        table = [self.scores(n) for n in range(proposals)]
        chosen: dict[int, tuple[float, ...]] = {}
        for index, budget in enumerate(self.sweep.budgets):
            best = max(range(proposals), key=lambda n: (table[n][index], -n))
            chosen[best] = (*chosen.get(best, ()), budget)
        return chosen

    def confirmation_left(self, proposals: int) -> list[tuple[int, int]]:
        pairs = [(n, seed) for seed in self.confirmation_seeds for n in self.choice(proposals)]
        return [pair for pair in pairs if pair not in self.confirmed]

    def ensembles_left(self, proposals: int) -> list[tuple[int, int]]:
        pairs = [(n, seed) for seed in self.ensemble_seeds for n in self.choice(proposals)]
        return [pair for pair in pairs if pair not in self.compared]

    def settings_of(self, proposal: int) -> tuple[str, dict[str, Any]]:
        """(method, all settings) of a proposal that was evaluated."""
        trial = self.tuned[proposal, self.tuning_seeds[0]]
        settings = json.loads(trial["settings"])
        return settings.pop("name"), settings


def rung_scores(trial: Trial, budgets: Sequence[float]) -> list[float]:
    """A trial's score at each budget, floored at WORST; WORST where it diverged or failed."""
    by_budget = {rung["budget"]: rung["score"] for rung in trial["rungs"]}
    found = [by_budget.get(budget) for budget in budgets]
    return [WORST if score is None else max(WORST, score) for score in found]


def run_cell(work: Workbench, sweep_dir: Path, cell: Cell, on_record: Callable[[Trial], None] | None = None) -> int:
    """Do what the cell's records say is missing; returns the number of new trials."""
    done = {"reference": run_references, "study": run_study, "ensemble": run_ensemble}[cell.kind]
    return done(work, sweep_dir, cell, on_record or (lambda _: None))


def references_missing(sweep_dir: Path, cell: Cell, sweep: Sweep) -> bool:
    wanted = reference_methods(stage_of(sweep, cell), cell.discovery_rate)
    return not set(wanted) <= {trial["method"] for trial in read_cell(sweep_dir, cell.name)}


def stage_of(sweep: Sweep, cell: Cell) -> str:
    """What the scenario of a reference cell is for."""
    return "confirmation" if cell.seed in sweep.seeds.confirmation else "tuning"


def run_references(work: Workbench, sweep_dir: Path, cell: Cell, on_record: Callable[[Trial], None]) -> int:
    """Train and measure what a scenario's trials are compared with."""
    there = {trial["trial_id"] for trial in read_cell(sweep_dir, cell.name)}
    if not references_missing(sweep_dir, cell, work.sweep):
        return 0
    stage, rate = stage_of(work.sweep, cell), cell.discovery_rate
    trials = measure_references(work, cell.attack, cell.seed, stage=stage, discovery_rate=rate, study=cell.name)
    return _append(sweep_dir, cell, [trial for trial in trials if trial["trial_id"] not in there], on_record)


def _append(sweep_dir: Path, cell: Cell, trials: Sequence[Trial], on_record: Callable[[Trial], None]) -> int:
    writer = CellWriter(sweep_dir, cell.name)
    for trial in trials:
        writer.append(trial)
        on_record(trial)
    return len(trials)


def ensemble_missing(sweep_dir: Path, cell: Cell) -> bool:
    return not set(REFERENCES) <= {trial["method"] for trial in read_cell(sweep_dir, cell.name)}


def run_ensemble(work: Workbench, sweep_dir: Path, cell: Cell, on_record: Callable[[Trial], None]) -> int:
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


def reference_trials(sweep: Sweep, sweep_dir: Path, cell: Cell) -> dict[int, list[Trial]]:
    """Reference trials of a study's scenarios, by seed."""
    seeds = (*sweep.seeds.tuning, *sweep.seeds.confirmation)
    names = {seed: Cell("reference", cell.attack, cell.discovery_rate, seed=seed).name for seed in seeds}
    return {seed: read_cell(sweep_dir, name) for seed, name in names.items()}


def attack_took(sweep: Sweep, sweep_dir: Path, attack: str, rate: float, *, unknown: bool) -> dict[int, bool]:
    """In which scenarios an attack took, by seed; `unknown` for those without references."""
    references = reference_trials(sweep, sweep_dir, Cell("study", attack, rate))
    return {seed: bool(trials[0]["attack_took"]) if trials else unknown for seed, trials in references.items()}


def load_study(sweep: Sweep, sweep_dir: Path, cell: Cell) -> Study:
    took = attack_took(sweep, sweep_dir, cell.attack, cell.discovery_rate, unknown=False)
    return Study(sweep, cell, read_cell(sweep_dir, cell.name), took)


def study_missing(sweep_dir: Path, cell: Cell, sweep: Sweep) -> bool:
    study, proposals = load_study(sweep, sweep_dir, cell), proposal_count(sweep.search, methods_of(sweep, cell))
    return bool(study.tuning_left(proposals) or study.confirmation_left(proposals) or study.ensembles_left(proposals))


def trials_in(sweep: Sweep, cell: Cell) -> int:
    """The most trials that a cell can have."""
    if cell.kind == "reference":
        return len(reference_methods(stage_of(sweep, cell), cell.discovery_rate))
    if cell.kind == "ensemble":
        return len(REFERENCES) if cell.member < 0 else 0
    proposals, seeds = proposal_count(sweep.search, methods_of(sweep, cell)), sweep.seeds
    chosen = min(proposals, len(sweep.budgets))
    return proposals * len(seeds.tuning) + chosen * len(seeds.confirmation) + ensemble_trials_in(sweep, cell)


def ensemble_trials_in(sweep: Sweep, cell: Cell) -> int:
    """The most ensemble trials that a study can have."""
    chosen = min(proposal_count(sweep.search, methods_of(sweep, cell)), len(sweep.budgets))
    return chosen * len(ensemble_seeds(sweep, dict.fromkeys((*sweep.seeds.tuning, *sweep.seeds.confirmation), True)))


def run_study(work: Workbench, sweep_dir: Path, cell: Cell, on_record: Callable[[Trial], None]) -> int:
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


def tuning_request(study: Study, number: int, seed: int) -> Request:
    first = study.tuning_seeds[0]
    if (number, first) in study.tuned:
        name, settings = study.settings_of(number)
        method = study.methods[name].build(settings)
    else:
        name, method = _proposed(study, number)
    return _request(study, name, method, seed, stage="tuning", budgets=study.sweep.budgets, proposal=number)


def _proposed(study: Study, number: int) -> tuple[str, Any]:
    from sweeps.search import propose  # takes a second to import; a study that is all tuned does not need it

    history = []
    for n in range(number):
        name, settings = study.settings_of(n)
        chosen = {key: settings[key] for key in study.methods[name].space()}
        scores = study.scores(n)
        history.append(Finished(Proposal(name, chosen), sum(scores) / len(scores)))
    name, chosen = propose(study.sweep.search, study.cell.name, number, history, study.methods)
    return name, study.methods[name].build(chosen)


def confirmation_request(
    study: Study, number: int, seed: int, proposals: int, *, stage: str = "confirmation"
) -> Request:
    """The chosen proposal up to the largest budget it was chosen for, on one model or (stage `ensemble`) on many."""
    name, settings = study.settings_of(number)
    chosen_for = study.choice(proposals)[number]
    budgets = tuple(b for b in study.sweep.budgets if b <= max(chosen_for))
    method = study.methods[name].build(settings)
    request = _request(study, name, method, seed, stage=stage, budgets=budgets, proposal=number)
    return Request(**(_fields(request) | {"chosen_for": chosen_for}))


def _fields(request: Request) -> dict[str, Any]:
    return {name: getattr(request, name) for name in request.__dataclass_fields__}


def _request(
    study: Study, name: str, settings: Any, seed: int, *, stage: str, budgets: tuple[float, ...], proposal: int
) -> Request:
    cell = study.cell
    return Request(
        attack=cell.attack,
        seed=seed,
        discovery_rate=cell.discovery_rate,
        stage=stage,
        method=name,
        settings=settings,
        budgets=budgets,
        study=cell.name,
        proposal=proposal,
    )
