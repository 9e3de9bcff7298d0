"""The references: retraining from scratch on the retain set, in full and within a budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from unlearn_core.models.initialise import initialise
from unlearn_core.registry import UNLEARNERS
from unlearn_core.seeding import derive
from unlearn_core.space import Range
from unlearn_core.training import train_updates
from unlearn_core.types import Task, Update


@UNLEARNERS.register("retrain")
@dataclass(frozen=True, kw_only=True)
class Retrain:
    """Retrains from scratch on the retain set by the full recipe: the exact answer, at the full price.

    A fresh initialisation, so nothing of the corrupted model is left. Same number of epochs as the recipe (not of
    steps: the retain set is smaller).
    """

    needs: ClassVar[tuple[str, ...]] = ("retain", "retain_labels", "initialisation")
    anytime: ClassVar[bool] = True

    def updates(self, task: Task) -> Iterator[Update]:
        initialise(task.model, derive(task.rng.seed, "init"))
        return train_updates(task.model, task.retain, task.recipe, task.rng)

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return {}


@UNLEARNERS.register("retrain_at_budget")
@dataclass(frozen=True, kw_only=True)
class RetrainAtBudget:
    """retrain@b: retrains from scratch on the retain set with only the budget, the recipe's schedule compressed to fit.

    The baseline that an unlearner must beat to be worth anything. Its settings are the recipe's, not tuned.
    """

    needs: ClassVar[tuple[str, ...]] = ("retain", "retain_labels", "initialisation")
    anytime: ClassVar[bool] = False

    def updates(self, task: Task) -> Iterator[Update]:
        initialise(task.model, derive(task.rng.seed, "init"))
        return train_updates(task.model, task.retain, task.recipe, task.rng, progress=task.progress)

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return {}
