"""What a sweep will do, checked and priced before anything expensive starts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from sweeps.config.spec import Sweep
from sweeps.planning.data_card import check_same
from sweeps.planning.missing import Missing
from sweeps.trials.feasible import telling
from sweeps.trials.reference_names import MODELS_PER_MEMBER
from sweeps.trials.scenario_cache import ScenarioCache
from unlearn_core.attacks.gradient_matching import warn_of_views
from unlearn_core.seeding import Streams
from unlearn_core.training import Recipe, steps_per_epoch, train_updates
from unlearn_core.training.budget import Meter


class Estimate(NamedTuple):
    """What the missing work costs. Confirmations are counted as if every budget chose another configuration.

    Attributes:
        training: FLOPs of training one oracle.
    """

    scenarios: int
    trainings: int
    trials: int
    flops: float
    flops_per_second: float
    training: float

    def hours(self, slots: int) -> float:
        return self.flops / self.flops_per_second / slots / 3600


def check_scenarios(work: ScenarioCache) -> None:
    """Every scenario must be possible; raises InputError before any training.

    What an attack only warns of is shown once per attack.
    """
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


def count_trainings(sweep: Sweep, left: Missing) -> int:
    """Trainings from scratch, as if the store had none of the models.

    Corrupted model and oracle once per scenario, the full retrainings of confirmation, and the models of ensembles.
    """
    models = {model for task in left.references for model in task.needs(sweep)}
    members = {member for task in left.ensembles for member in task.needs(sweep)}
    return len(models) + MODELS_PER_MEMBER * len(members)


def estimate(work: ScenarioCache, left: Missing) -> Estimate:
    """The price of the missing tasks, by one real training step on this machine."""
    sweep = work.sweep
    training, speed = time_training(work)
    trainings = count_trainings(sweep, left)
    trials = sum(task.most_trials(sweep) for task in (*left.ensembles, *left.studies))
    climbed = sum(task.price(sweep) for task in (*left.references, *left.studies))
    scenarios = len(sweep.attacks) * len(sweep.scenario_seeds)
    return Estimate(scenarios, trainings, trials, training * (trainings + climbed), speed, training)


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
