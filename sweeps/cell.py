"""A cell: the unit that one worker walks through. Either the references of one scenario, or one study.

What a cell still has to do is a pure function of its records, so "resume" and "run" are the same thing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sweeps.proposals import Finished, Proposal, proposal_count
from sweeps.spec import Method, Sweep
from sweeps.store import CellWriter, Trial, read_cell
from sweeps.trial import Request, measure_references, read_reference, run_trial
from sweeps.workbench import Workbench

WORST = -1.0  # score of a diverged or failed rung, and the floor of all scores: an outlier must not rule the search


@dataclass(frozen=True)
class Cell:
    """kind: `reference` (one scenario) or `study` (one attack and method, or `best` over all methods)."""

    kind: str
    attack: str
    discovery_rate: float
    method: str = ""
    seed: int = -1

    @property
    def name(self) -> str:
        """Unique in the sweep, and safe as a folder name."""
        rate = "" if self.discovery_rate == 1 else f"--found{self.discovery_rate!r}"
        tail = f"references--seed{self.seed}" if self.kind == "reference" else self.method
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
        first = reversed(trials)  # of two writers the first one counts, whose record the later ones built on
        self.tuned = {(t["proposal"], t["seed"]): t for t in first if t["stage"] == "tuning"}
        self.confirmed = {(t["proposal"], t["seed"]) for t in trials if t["stage"] == "confirmation"}

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
    done = run_references if cell.kind == "reference" else run_study
    return done(work, sweep_dir, cell, on_record or (lambda _: None))


def references_missing(sweep_dir: Path, cell: Cell, sweep: Sweep) -> bool:
    wanted = {"none", "oracle", "retrain_at_budget"} | ({"retrain"} if cell.seed in sweep.seeds.confirmation else set())
    return not wanted <= {trial["method"] for trial in read_cell(sweep_dir, cell.name)}


def run_references(work: Workbench, sweep_dir: Path, cell: Cell, on_record: Callable[[Trial], None]) -> int:
    """Train and measure what a scenario's trials are compared with."""
    there = {trial["trial_id"] for trial in read_cell(sweep_dir, cell.name)}
    if not references_missing(sweep_dir, cell, work.sweep):
        return 0
    stage = "confirmation" if cell.seed in work.sweep.seeds.confirmation else "tuning"
    trials = measure_references(
        work, cell.attack, cell.seed, stage=stage, discovery_rate=cell.discovery_rate, study=cell.name
    )
    writer, left = CellWriter(sweep_dir, cell.name), [trial for trial in trials if trial["trial_id"] not in there]
    for trial in left:
        writer.append(trial)
        on_record(trial)
    return len(left)


def reference_trials(sweep: Sweep, sweep_dir: Path, cell: Cell) -> dict[int, list[Trial]]:
    """Reference trials of a study's scenarios, by seed."""
    seeds = (*sweep.seeds.tuning, *sweep.seeds.confirmation)
    names = {seed: Cell("reference", cell.attack, cell.discovery_rate, seed=seed).name for seed in seeds}
    return {seed: read_cell(sweep_dir, name) for seed, name in names.items()}


def load_study(sweep: Sweep, sweep_dir: Path, cell: Cell) -> Study:
    references = reference_trials(sweep, sweep_dir, cell)
    took = {seed: bool(trials) and bool(trials[0]["attack_took"]) for seed, trials in references.items()}
    return Study(sweep, cell, read_cell(sweep_dir, cell.name), took)


def study_missing(sweep_dir: Path, cell: Cell, sweep: Sweep) -> bool:
    study, proposals = load_study(sweep, sweep_dir, cell), proposal_count(sweep.search, methods_of(sweep, cell))
    return bool(study.tuning_left(proposals) or study.confirmation_left(proposals))


def trials_in(sweep: Sweep, cell: Cell) -> int:
    """The most trials that a cell can have."""
    if cell.kind == "reference":
        return 4 if cell.seed in sweep.seeds.confirmation else 3
    proposals = proposal_count(sweep.search, methods_of(sweep, cell))
    chosen = min(proposals, len(sweep.budgets))
    return proposals * len(sweep.seeds.tuning) + chosen * len(sweep.seeds.confirmation)


def run_study(work: Workbench, sweep_dir: Path, cell: Cell, on_record: Callable[[Trial], None]) -> int:
    """Propose and evaluate on the tuning scenarios, then confirm the choice on fresh ones."""
    sweep = work.sweep
    references = {s: read_reference(t) for s, t in reference_trials(sweep, sweep_dir, cell).items()}
    writer, study, count = CellWriter(sweep_dir, cell.name), load_study(sweep, sweep_dir, cell), 0
    proposals = proposal_count(sweep.search, study.methods)

    def record(request: Request) -> None:
        nonlocal count
        trial = run_trial(work, request, references[request.seed])
        writer.append(trial)
        on_record(trial)
        count += 1
        if request.stage == "tuning":
            study.tuned[trial["proposal"], trial["seed"]] = trial

    for number, seed in study.tuning_left(proposals):
        record(tuning_request(study, number, seed))
    for number, seed in study.confirmation_left(proposals):
        record(confirmation_request(study, number, seed, proposals))
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


def confirmation_request(study: Study, number: int, seed: int, proposals: int) -> Request:
    """The chosen proposal up to the largest budget it was chosen for."""
    name, settings = study.settings_of(number)
    chosen_for = study.choice(proposals)[number]
    budgets = tuple(b for b in study.sweep.budgets if b <= max(chosen_for))
    method = study.methods[name].build(settings)
    request = _request(study, name, method, seed, stage="confirmation", budgets=budgets, proposal=number)
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
