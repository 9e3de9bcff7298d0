"""What can be refused of a test before anything is trained."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import Tensor

from sweeps.hypotheses.bench import as_table
from sweeps.hypotheses.spec import Attacked, Hypotheses
from sweeps.trials.feasible import NeedsModel, no_model
from unlearn_core.checks import InputError
from unlearn_core.datasets.features import named
from unlearn_core.hypotheses.model_shift import Corrupted, removal_orders
from unlearn_core.models import Linear
from unlearn_core.registry import MODELS
from unlearn_core.scenarios.scenario import Scenario
from unlearn_core.seeding import generator
from unlearn_core.training import Recipe
from unlearn_core.types import Dataset

COLUMNS = 2
"""Of the noise in the place of features: 48 random bits tell all rows apart, as features do."""


def check_attacks(spec: Hypotheses, inputs: Dataset) -> None:
    """Check that every attack can poison the rows, and leaves clean ones to compare with, as far as no model is needed.

    An attack that begins with a search (gradient matching, gradient canceling) is checked up to there: the labels that
    its poisons will have are not counted.

    Raises:
        InputError: Naming the attack.
    """
    for label, attacked in spec.attacks.items():
        for seed in range(spec.protocol.seeds):
            try:
                _check(_scenario(spec, attacked, inputs, seed))
            except InputError as problem:
                raise InputError(f"attacks.{label}: {problem}") from None


def _scenario(spec: Hypotheses, attacked: Attacked, inputs: Dataset, seed: int) -> Scenario:
    model, data = named(MODELS, spec.features.model, "features.model"), inputs
    if attacked.acts_on == "features":  # only their shape is looked at, and that no two are equal
        random = torch.Generator().manual_seed(0)
        noise = as_table(inputs, lambda rows: torch.randn(len(rows), COLUMNS, generator=random), COLUMNS)
        model, data = Linear(), noise
    return Scenario(data, model, Recipe(), attacked.settings, seed, torch.device("cpu"))


def _check(scenario: Scenario) -> None:
    train = scenario.dataset.train
    with suppress(NeedsModel):
        full, poison = scenario.attack.craft(train, scenario.context(no_model)).apply(train)
        labels_only: Tensor = full.targets[:, None]
        removal_orders(Corrupted(labels_only, full.targets, poison, scenario.dataset.classes), generator(0, "check"))
