"""Tasks that make and measure what the studies of a scenario share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sweeps.config.outline import Outline
from sweeps.planning.task import Task, Threat, folder_name
from sweeps.schema.stages import Stage
from sweeps.trials.reference_names import ENSEMBLE_REFERENCES, MODELS_PER_MEMBER, reference_methods


@dataclass(frozen=True)
class CraftPoison(Task):
    """Craft the poison of a scenario."""

    kind = "craft_poison"
    level = 4

    seed: int

    @property
    def folder(self) -> str:
        return folder_name(self.attack, f"poison--seed{self.seed}")

    @property
    def row(self) -> str:
        return "references"

    def price(self, sweep: Outline) -> float:
        return 1.0


@dataclass(frozen=True)
class TrainModel(Task):
    """Train one model that the references of a scenario need.

    Attributes:
        role: `corrupted`, `oracle`, `retrain` (a second oracle) or `retrain_discovered` (trained without the discovered
            poisons). The discovery rate matters to the last one only.
    """

    kind = "train_model"
    level = 3

    seed: int
    role: str
    discovery_rate: float = 1.0

    @property
    def folder(self) -> str:
        return folder_name(self.attack, f"{self.role}--seed{self.seed}", self.discovery_rate)

    @property
    def row(self) -> str:
        return "references"

    @property
    def alike(self) -> tuple[str, ...]:
        return self.kind, self.role

    def price(self, sweep: Outline) -> float:
        return 1.0

    def needs(self, sweep: Outline) -> Sequence[Task]:
        return (CraftPoison(self.attack, self.seed),)


@dataclass(frozen=True)
class MeasureReferences(Task):
    """Measure what the trials of a scenario are compared with."""

    kind = "measure_references"
    level = 2

    discovery_rate: float
    seed: int

    @property
    def folder(self) -> str:
        return folder_name(self.attack, f"references--seed{self.seed}", self.discovery_rate)

    @property
    def row(self) -> str:
        return "references"

    @property
    def threat(self) -> Threat:
        return Threat(self.attack, self.discovery_rate)

    def price(self, sweep: Outline) -> float:
        return sum(sweep.budgets)

    def stage(self, sweep: Outline) -> Stage:
        """The stage of the trials that are compared with these references."""
        return Stage.CONFIRMATION if self.seed in sweep.seeds.confirmation else Stage.TUNING

    def methods(self, sweep: Outline) -> tuple[str, ...]:
        """Names of the references."""
        return reference_methods(self.stage(sweep), self.discovery_rate)

    def most_trials(self, sweep: Outline) -> int:
        return len(self.methods(sweep))

    def needs(self, sweep: Outline) -> Sequence[TrainModel]:
        known = self.methods(sweep)
        models = [TrainModel(self.attack, self.seed, role) for role in ("corrupted", "oracle")]
        if "retrain" in known:
            models.append(TrainModel(self.attack, self.seed, "retrain"))
        if "retrain_discovered" in known:
            models.append(TrainModel(self.attack, self.seed, "retrain_discovered", self.discovery_rate))
        return models


@dataclass(frozen=True)
class TrainMember(Task):
    """Train the models of one member of a scenario's ensemble; all discovery rates share them."""

    kind = "train_member"
    level = 1

    seed: int
    member: int

    @property
    def folder(self) -> str:
        return folder_name(self.attack, f"member{self.member}--seed{self.seed}")

    @property
    def row(self) -> str:
        return "ensembles"

    def price(self, sweep: Outline) -> float:
        return float(MODELS_PER_MEMBER)


@dataclass(frozen=True)
class MeasureEnsemble(Task):
    """Measure what the ensemble trials of a scenario are compared with."""

    kind = "measure_ensemble"

    discovery_rate: float
    seed: int

    @property
    def folder(self) -> str:
        return folder_name(self.attack, f"ensembles--seed{self.seed}", self.discovery_rate)

    @property
    def row(self) -> str:
        return "ensembles"

    @property
    def threat(self) -> Threat:
        return Threat(self.attack, self.discovery_rate)

    def price(self, sweep: Outline) -> float:
        return 1.0

    def most_trials(self, sweep: Outline) -> int:
        return len(ENSEMBLE_REFERENCES)

    def needs(self, sweep: Outline) -> Sequence[TrainMember]:
        return [TrainMember(self.attack, self.seed, member) for member in range(sweep.ensemble.members)]
