"""Cells: the units that one worker walks through: part of a scenario's references, a study, or part of an ensemble."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from sweeps.config.choices import Method
from sweeps.config.shares import SINGLE
from sweeps.config.spec import Sweep
from sweeps.planning.proposals import proposal_count
from sweeps.storage.files import Folder, StorageError
from sweeps.storage.record_log import Trial, read_own
from sweeps.trials.ensemble import REFERENCES
from sweeps.trials.references import reference_methods

Case = tuple[str, float]

IN_SIGHT = 90.0  # seconds: folders on NFS are looked at again after at most 60


@dataclass(frozen=True)
class Cell:
    """kind: `training` (one model or the poison of a scenario, `role`), `reference` (measuring a scenario's
    references), `study` (one attack and method, or `best` over all methods; with a `proposal` one trial of it), or
    `ensemble`: training the models of one `member` of a scenario's ensemble, or, without a member, measuring its
    references.

    stage: of the one trial. alone: it gets a whole GPU, as it ran out of memory on a share of one.
    """

    kind: str
    attack: str
    discovery_rate: float
    method: str = ""
    seed: int = -1
    member: int = -1
    role: str = ""
    proposal: int = -1
    stage: str = ""
    alone: bool = False

    @property
    def name(self) -> str:
        """Unique in the sweep, and safe as a folder name."""
        trial = f"--trial{self.proposal}-{self.stage}-seed{self.seed}" if self.proposal >= 0 else ""
        return self.folder + trial + ("--alone" if self.alone else "")

    @property
    def folder(self) -> str:
        """The name of the folder that its records are in: trials of a study are all in the study's."""
        share = "single" if self.discovery_rate == SINGLE else repr(self.discovery_rate)
        rate = "" if self.discovery_rate == 1 else f"--found{share}"
        part = f"member{self.member}" if self.member >= 0 else self.role or f"{self.kind}s"
        tail = self.method if self.kind == "study" else f"{part}--seed{self.seed}"
        return f"{self.attack}--{tail}{rate}"

    @property
    def whole(self) -> Cell:
        """The study that a single trial is of; any other cell as it was handed out first."""
        seed = -1 if self.kind == "study" else self.seed
        return replace(self, seed=seed, proposal=-1, stage="", alone=False)


class Result(NamedTuple):
    """What became of a cell. error: a traceback if it failed as a whole. crowded: the part of it that ran out of memory
    on a share of a GPU, to be done on a whole one."""

    error: str | None = None
    crowded: Cell | None = None


def case_of(cell: Cell) -> Case:
    """What shares references: the studies and ensembles of an attack at a discovery rate wait for the same ones."""
    return cell.attack, cell.discovery_rate


def reference_cells(sweep: Sweep) -> list[Cell]:
    return [
        Cell("reference", attack, rate, seed=seed)
        for attack in sweep.attacks
        for rate in sweep.discovery_rates
        for seed in sweep.scenario_seeds
    ]


def study_cells(sweep: Sweep) -> list[Cell]:
    methods = ["best"] if sweep.search.mode == "best" and sweep.methods else list(sweep.methods)
    return [
        Cell("study", attack, rate, method)
        for attack in sweep.attacks
        for rate in sweep.discovery_rates
        for method in methods
    ]


def ensemble_cells(sweep: Sweep, sweep_dir: Folder) -> list[Cell]:
    """One per scenario that gets an ensemble and discovery rate; where an attack has no references yet, it is taken to
    take."""
    cells = []
    for study in dict.fromkeys((cell.attack, cell.discovery_rate) for cell in study_cells(sweep)):
        took = where_attack_took(sweep, sweep_dir, *study, unknown=True)
        cells += [Cell("ensemble", *study, seed=seed) for seed in ensemble_seeds(sweep, took)]
    return cells


def ensemble_seeds(sweep: Sweep, took: Mapping[int, bool]) -> list[int]:
    """The confirmation scenarios that get an ensemble; none where no tuning scenario can choose what to compare."""
    if not sweep.ensemble.members or not any(took[seed] for seed in sweep.seeds.tuning):
        return []
    return [seed for seed in sweep.seeds.confirmation if took[seed]][: sweep.ensemble.scenarios]


def trainings(sweep: Sweep, reference: Cell) -> tuple[Cell, list[Cell]]:
    """What makes the poison of a scenario, and what trains each model that its references need."""
    full = reference_methods(stage_of(sweep, reference), reference.discovery_rate)
    roles = ["corrupted", "oracle", *(role for role in ("retrain", "retrain_discovered") if role in full)]
    rates = {role: reference.discovery_rate if role == "retrain_discovered" else 1.0 for role in roles}
    attack, seed = reference.attack, reference.seed
    models = [Cell("training", attack, rates[role], seed=seed, role=role) for role in roles]
    return Cell("training", attack, 1.0, seed=seed, role="poison"), models


def members(sweep: Sweep, cells: Iterable[Cell]) -> list[Cell]:
    """What trains the models of the ensembles among `cells`, member by member; discovery rates share them all."""
    first = {(cell.attack, cell.seed): replace(cell, discovery_rate=1.0) for cell in cells if cell.kind == "ensemble"}
    return [replace(cell, member=member) for cell in first.values() for member in range(sweep.ensemble.members)]


def methods_of(sweep: Sweep, cell: Cell) -> dict[str, Method]:
    """The methods that a study searches over."""
    return dict(sweep.methods) if cell.method == "best" else {cell.method: sweep.methods[cell.method]}


def stage_of(sweep: Sweep, cell: Cell) -> str:
    """What the scenario of a reference cell is for."""
    return "confirmation" if cell.seed in sweep.seeds.confirmation else "tuning"


def reference_trials(sweep: Sweep, sweep_dir: Folder, cell: Cell) -> dict[int, list[Trial]]:
    """Reference trials of a study's scenarios, by seed."""
    seeds = (*sweep.seeds.tuning, *sweep.seeds.confirmation)
    names = {seed: Cell("reference", cell.attack, cell.discovery_rate, seed=seed).name for seed in seeds}
    return {seed: read_own(sweep_dir, name) for seed, name in names.items()}


def await_references(sweep: Sweep, sweep_dir: Folder, cell: Cell) -> dict[int, list[Trial]]:
    """Those of a study that is begun: they are recorded, but where machines share a folder, what one wrote can take a
    while to be seen by others. Raises StorageError if it does not come into sight."""
    end = time.monotonic() + IN_SIGHT
    while unseen := _unseen(sweep, found := reference_trials(sweep, sweep_dir, cell)):
        if time.monotonic() > end:
            raise StorageError(f"{sweep_dir} does not show the references of {cell.attack} with seeds {unseen}")
        time.sleep(1)
    return found


def _unseen(sweep: Sweep, found: Mapping[int, Sequence[Trial]]) -> list[int]:
    """The seeds without references, of those that get any."""
    return [seed for seed in sweep.scenario_seeds if not found[seed]]


def where_attack_took(sweep: Sweep, sweep_dir: Folder, attack: str, rate: float, *, unknown: bool) -> dict[int, bool]:
    """In which scenarios an attack took, by seed; `unknown` for those without references."""
    references = reference_trials(sweep, sweep_dir, Cell("study", attack, rate))
    return {seed: bool(trials[0]["attack_took"]) if trials else unknown for seed, trials in references.items()}


def trials_in(sweep: Sweep, cell: Cell) -> int:
    """The most trials that a cell can have."""
    if cell.proposal >= 0:
        return 1
    if cell.kind == "training":
        return 0
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
