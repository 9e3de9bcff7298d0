"""What a sweep will do, checked and priced before anything expensive starts."""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sweeps.config.spec import Sweep
from sweeps.planning.costs import climbs_in
from sweeps.planning.data_card import check_same
from sweeps.planning.missing import ensemble_missing, references_missing
from sweeps.planning.proposals import proposal_count
from sweeps.planning.study import Study
from sweeps.planning.tasks import (
    Cell,
    case_of,
    ensemble_cells,
    members,
    reference_cells,
    study_cells,
    trainings,
    trials_in,
    where_attack_took,
)
from sweeps.storage.record_log import read_own
from sweeps.trials.ensemble import MODELS_PER_MEMBER
from sweeps.trials.feasible import telling
from sweeps.trials.scenario_cache import ScenarioCache
from unlearn_core.attacks.gradient_matching import warn_of_views
from unlearn_core.seeding import Streams
from unlearn_core.training import Recipe, steps_per_epoch, train_updates
from unlearn_core.training.budget import Meter


class Missing(NamedTuple):
    """Cells that still have something to do. `studies` holds the ensembles that are not measured yet, too."""

    references: list[Cell]
    studies: list[Cell]


class Estimate(NamedTuple):
    """What the missing work comes to. Confirmations are counted as if every budget chose another configuration.

    training: FLOPs of training one oracle."""

    scenarios: int
    trainings: int
    trials: int
    flops: float
    flops_per_second: float
    training: float

    def hours(self, slots: int) -> float:
        return self.flops / self.flops_per_second / slots / 3600


def check_scenarios(work: ScenarioCache) -> None:
    """Every scenario must be possible; raises InputError before any training. What an attack only warns of is told once
    per attack."""
    seeds = work.sweep.scenario_seeds
    work.check_methods(work.scenario(next(iter(work.sweep.attacks)), seeds[0]))
    for attack in work.sweep.attacks:
        with telling(attack):
            warn_of_views(work.scenario(attack, seeds[0]).attack, work.sweep.recipe.augmentation)
            for seed in seeds:
                work.check(attack, seed)


def check_data(work: ScenarioCache, sweep_dir: Path) -> None:
    """Records that are there must come from the same data; raises InputError if the files changed since."""
    check_same(work, work.dataset, sweep_dir)


def missing(sweep: Sweep, sweep_dir: Path) -> Missing:
    """Cells whose records are incomplete; the longest first, so that none is left over alone at the end."""
    references = [cell for cell in reference_cells(sweep) if references_missing(sweep_dir, cell, sweep)]
    waiting = set(map(case_of, references))
    took = cache(lambda case: where_attack_took(sweep, sweep_dir, *case, unknown=False))  # read once for all methods

    def unfinished(cell: Cell) -> bool:
        study = Study(sweep, cell, read_own(sweep_dir, cell.folder), took(case_of(cell)))
        return not study.finished(proposal_count(sweep.search, study.methods))

    studies = [cell for cell in study_cells(sweep) if case_of(cell) in waiting or unfinished(cell)]
    ensembles = [cell for cell in ensemble_cells(sweep, sweep_dir) if ensemble_missing(sweep_dir, cell)]
    return Missing(references, [*ensembles, *sorted(studies, key=lambda cell: -trials_in(sweep, cell))])


def count_trainings(sweep: Sweep, references: Iterable[Cell]) -> int:
    """Trainings from scratch, as if none were in the store: corrupted model and oracle once per scenario, and the full
    retrainings, which only confirmation has."""
    return len({model for cell in references for model in trainings(sweep, cell)[1]})


def estimate(work: ScenarioCache, left: Missing) -> Estimate:
    """Prices the missing cells by one real training step on this machine."""
    sweep = work.sweep
    training, speed = time_training(work)
    trainings = count_trainings(sweep, left.references)
    trainings += MODELS_PER_MEMBER * len(members(sweep, left.studies))
    trials = sum(trials_in(sweep, cell) for cell in left.studies)
    climbs = sum(climbs_in(sweep, cell) for cell in left.studies)
    ladders = climbs * max(sweep.budgets) + len(left.references) * sum(sweep.budgets)
    scenarios = len(sweep.attacks) * len(sweep.scenario_seeds)
    return Estimate(scenarios, trainings, trials, training * (trainings + ladders), speed, training)


def time_training(work: ScenarioCache, seconds: float = 0.5) -> tuple[float, float]:
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
