"""What a sweep will do, checked and priced before anything expensive starts."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from sweeps.artifacts import digest
from sweeps.cell import (
    Cell,
    ensemble_cells,
    ensemble_trials_in,
    reference_cells,
    stage_of,
    study_cells,
    trials_in,
)
from sweeps.ensemble import MODELS_PER_MEMBER
from sweeps.references import reference_methods
from sweeps.run import ensemble_missing, references_missing
from sweeps.spec import Sweep
from sweeps.store import read_trials
from sweeps.study import study_missing
from sweeps.workbench import Workbench
from unlearn_core.attacks.gradient_matching import warn_of_views
from unlearn_core.budget import Meter
from unlearn_core.checks import InputError
from unlearn_core.seeding import Streams
from unlearn_core.training import Recipe, steps_per_epoch, train_updates


class Missing(NamedTuple):
    """Cells that still have something to do. `studies` holds the ensembles that are not measured yet, too."""

    references: list[Cell]
    studies: list[Cell]


class Estimate(NamedTuple):
    """What the missing work comes to. Confirmations are counted as if every budget chose another configuration."""

    scenarios: int
    trainings: int
    trials: int
    flops: float
    flops_per_second: float

    def hours(self, slots: int) -> float:
        return self.flops / self.flops_per_second / slots / 3600


def check_scenarios(work: Workbench) -> None:
    """Every scenario must be possible; raises InputError before any training. What an attack only warns of is told once
    per attack."""
    seeds = work.sweep.scenario_seeds
    work.check_methods(work.scenario(next(iter(work.sweep.attacks)), seeds[0]))
    for attack in work.sweep.attacks:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warn_of_views(work.scenario(attack, seeds[0]).attack, work.sweep.recipe.augmentation)
            for seed in seeds:
                work.check(attack, seed)
        for warned in [w for w in caught if w.category is UserWarning][:1]:
            print(f"warning: attack {attack!r}: {warned.message}", file=sys.stderr)


def check_data(work: Workbench, sweep_dir: Path) -> None:
    """Records that are there must come from the same data; raises InputError if the files changed since."""
    groups = {digest(work.group(attack)) for attack in work.sweep.attacks}
    if any(trial["group_id"] not in groups for trial in read_trials(sweep_dir)):
        raise InputError(
            f"{sweep_dir} holds trials on other data than data set {work.dataset.name!r} now gives; "
            "restore the files, or give this sweep another --name or --out"
        )


def missing(sweep: Sweep, sweep_dir: Path) -> Missing:
    """Cells whose records are incomplete; the longest first, so that none is left over alone at the end."""
    references = [cell for cell in reference_cells(sweep) if references_missing(sweep_dir, cell, sweep)]
    waiting = _cases(references)
    studies = [cell for cell in study_cells(sweep) if _case(cell) in waiting or study_missing(sweep_dir, cell, sweep)]
    ensembles = [cell for cell in ensemble_cells(sweep, sweep_dir) if ensemble_missing(sweep_dir, cell)]
    return Missing(references, [*ensembles, *sorted(studies, key=lambda cell: -trials_in(sweep, cell))])


def members(sweep: Sweep, cells: Iterable[Cell]) -> list[Cell]:
    """What trains the models of the ensembles among `cells`, member by member; discovery rates share them all."""
    first = {(cell.attack, cell.seed): cell for cell in cells if cell.kind == "ensemble"}
    return [replace(cell, member=member) for cell in first.values() for member in range(sweep.ensemble.members)]


def waves(references: Iterable[Cell]) -> tuple[list[Cell], list[Cell]]:
    """Reference cells to be done first, one per scenario, and those at its further discovery rates: side by side they
    would train the same models."""
    first: dict[tuple[str, int], Cell] = {}
    later = [cell for cell in references if first.setdefault((cell.attack, cell.seed), cell) is not cell]
    return list(first.values()), later


def count_trainings(sweep: Sweep, references: Iterable[Cell]) -> int:
    """Trainings from scratch, as if none were in the store: corrupted model and oracle once per scenario, and the full
    retrainings, which only confirmation has."""
    first, later = waves(references)
    full = [set(reference_methods(stage_of(sweep, cell), cell.discovery_rate)) for cell in (*first, *later)]
    second = sum("retrain" in names for names in full[: len(first)])
    return 2 * len(first) + second + sum("retrain_discovered" in names for names in full)


def ready(left: Missing) -> list[Cell]:
    """The studies whose references are all there."""
    waiting = _cases(left.references)
    return [cell for cell in left.studies if _case(cell) not in waiting]


def _case(cell: Cell) -> tuple[str, float]:
    return cell.attack, cell.discovery_rate


def _cases(cells: Iterable[Cell]) -> set[tuple[str, float]]:
    return set(map(_case, cells))


def estimate(work: Workbench, left: Missing) -> Estimate:
    """Prices the missing cells by one real training step on this machine."""
    sweep = work.sweep
    training, speed = time_training(work)
    trainings = count_trainings(sweep, left.references)
    trainings += MODELS_PER_MEMBER * len(members(sweep, left.studies))
    trials = sum(trials_in(sweep, cell) for cell in left.studies)
    climbs = sum(climbs_in(sweep, cell) for cell in left.studies)
    ladders = climbs * max(sweep.budgets) + len(left.references) * sum(sweep.budgets)
    scenarios = len(sweep.attacks) * len(sweep.scenario_seeds)
    return Estimate(scenarios, trainings, trials, training * (trainings + ladders), speed)


def climbs_in(sweep: Sweep, cell: Cell) -> int:
    """The most ladders that are climbed in a cell: one per trial, in an ensemble trial one per member and shadow."""
    if cell.kind == "ensemble":
        return 0
    return trials_in(sweep, cell) + ensemble_trials_in(sweep, cell) * (2 * sweep.ensemble.members - 1)


def time_training(work: Workbench, seconds: float = 0.5) -> tuple[float, float]:
    """(FLOPs of one training, FLOPs per second of the training loop here), from a short real run."""
    sweep, data = work.sweep, work.dataset
    scenario = work.scenario(next(iter(sweep.attacks)), seed=0)
    model, meter = scenario.fresh_model("timing"), Meter(work.device, sweep.recipe.bf16)
    endless = Recipe(**(vars(sweep.recipe) | {"schedule": "constant"}))
    updates = train_updates(model, data.train, endless, Streams(0, work.device), progress=lambda: 0.5)
    announced = next(updates)
    announced = meter.advance(updates, announced)  # the first update pays for counting and warming up
    per_step, done, start = meter.flops, 0, meter.clock()
    while time.perf_counter() - start < seconds:
        announced = meter.advance(updates, announced)
        done += 1
    speed = done * per_step / (meter.clock() - start)
    steps = sweep.recipe.epochs * steps_per_epoch(len(data.train), sweep.recipe.batch_size)
    return float(per_step * steps), speed
