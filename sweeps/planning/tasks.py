"""Tasks: what one worker does in one go. Each kind of task is a class of its own; how it runs is in `run_task.py`."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, NamedTuple

from sweeps.config.outline import Outline, SearchedMethod
from sweeps.config.shares import SINGLE
from sweeps.planning.proposals import proposal_count
from sweeps.schema.stages import Stage
from sweeps.trials.reference_names import ENSEMBLE_REFERENCES, MODELS_PER_MEMBER, reference_methods

BEST = "best"  # the method of a study that searches over all methods
PART = re.compile(r"(--trial\d+-\w+-seed\d+)?(--alone)?$")  # what a task's name adds to the name of its folder


class Threat(NamedTuple):
    """An attack, and how many of its poisons the defender found. Studies of one threat share all their references."""

    attack: str
    discovery_rate: float


class Outcome(NamedTuple):
    """What became of a task.

    Attributes:
        error: traceback, if the task failed as a whole.
        too_large: the part of the task that ran out of memory on a share of a GPU; it needs a whole one.
    """

    error: str | None = None
    too_large: Task | None = None


@dataclass(frozen=True)
class Task(ABC):
    """What one worker does in one go.

    Attributes:
        attack: label of the attack.
        whole_gpu: the task gets a whole GPU, because it ran out of memory on a share of one. It is still the same task:
            tasks that differ in nothing else are equal.
        kind: name of the class on the wire.
        level: how much waits for tasks of this class; the highest level comes first.
    """

    kind: ClassVar[str]
    level: ClassVar[int] = 0

    attack: str
    whole_gpu: bool = field(default=False, compare=False, kw_only=True)

    @property
    def name(self) -> str:
        """Unique in the sweep, and safe as a folder name."""
        return self.folder + ("--alone" if self.whole_gpu else "")

    @property
    @abstractmethod
    def folder(self) -> str:
        """Name of the folder that holds the records."""

    @property
    @abstractmethod
    def row(self) -> str:
        """Where the task counts in the table of `status`: `references`, `ensembles`, or the method of a study."""

    @property
    def alike(self) -> tuple[str, ...]:
        """Equal for tasks that take about as long for the same price."""
        return (self.kind,)

    @abstractmethod
    def price(self, sweep: Outline) -> float:
        """Compute that the task takes, in trainings from scratch; budgets are shares of those."""

    def most_trials(self, sweep: Outline) -> int:
        """The most trials that the task records."""
        return 0

    def needs(self, sweep: Outline) -> Sequence[Task]:
        """The tasks that must be done before. A study also waits for the references and ensembles of its threat: which
        ones there are, only records say."""
        return ()


@dataclass(frozen=True)
class CraftPoison(Task):
    """Craft the poison of a scenario."""

    kind = "craft_poison"
    level = 4

    seed: int

    @property
    def folder(self) -> str:
        return _folder(self.attack, f"poison--seed{self.seed}")

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
        return _folder(self.attack, f"{self.role}--seed{self.seed}", self.discovery_rate)

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
        return _folder(self.attack, f"references--seed{self.seed}", self.discovery_rate)

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
        return _folder(self.attack, f"member{self.member}--seed{self.seed}")

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
        return _folder(self.attack, f"ensembles--seed{self.seed}", self.discovery_rate)

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


@dataclass(frozen=True)
class RunStudy(Task):
    """Search over the settings of a method (or of all methods: `best`), then confirm what was chosen."""

    kind = "run_study"

    discovery_rate: float
    method: str

    @property
    def folder(self) -> str:
        return _folder(self.attack, self.method, self.discovery_rate)

    @property
    def row(self) -> str:
        return self.method

    @property
    def threat(self) -> Threat:
        return Threat(self.attack, self.discovery_rate)

    @property
    def alike(self) -> tuple[str, ...]:
        return RunStudy.kind, self.method

    def methods(self, sweep: Outline) -> dict[str, SearchedMethod]:
        """The methods that the study searches over."""
        return dict(sweep.methods) if self.method == BEST else {self.method: sweep.methods[self.method]}

    def proposals(self, sweep: Outline) -> int:
        """How many proposals the study makes."""
        return proposal_count(sweep.search, self.methods(sweep))

    def trial(self, stage: Stage, proposal: int, seed: int) -> RunTrial:
        """One trial of the study."""
        return RunTrial(self.attack, self.discovery_rate, self.method, stage, proposal, seed)

    def price(self, sweep: Outline) -> float:
        return self.ladders(sweep) * max(sweep.budgets)

    def ladders(self, sweep: Outline) -> int:
        """The most ladders that the study climbs: one per trial, in an ensemble trial one per member and shadow."""
        return self.most_trials(sweep) + self._most_ensemble_trials(sweep) * (2 * sweep.ensemble.members - 1)

    def most_trials(self, sweep: Outline) -> int:
        tuning = self.proposals(sweep) * len(sweep.seeds.tuning)
        confirmation = self._most_chosen(sweep) * len(sweep.seeds.confirmation)
        return tuning + confirmation + self._most_ensemble_trials(sweep)

    def _most_ensemble_trials(self, sweep: Outline) -> int:
        seeds = dict.fromkeys((*sweep.seeds.tuning, *sweep.seeds.confirmation), True)
        return self._most_chosen(sweep) * len(ensemble_seeds(sweep, seeds))

    def _most_chosen(self, sweep: Outline) -> int:
        return min(self.proposals(sweep), len(sweep.budgets))


@dataclass(frozen=True)
class RunTrial(Task):
    """One trial of a study, where studies are handed out trial by trial."""

    kind = "run_trial"

    discovery_rate: float
    method: str
    stage: Stage
    proposal: int
    seed: int

    @property
    def study(self) -> RunStudy:
        return RunStudy(self.attack, self.discovery_rate, self.method)

    @property
    def name(self) -> str:
        part = f"--trial{self.proposal}-{self.stage}-seed{self.seed}"
        return self.folder + part + ("--alone" if self.whole_gpu else "")

    @property
    def folder(self) -> str:
        return self.study.folder

    @property
    def row(self) -> str:
        return self.study.row

    @property
    def alike(self) -> tuple[str, ...]:
        return self.study.alike

    def price(self, sweep: Outline) -> float:
        ladders = 2 * sweep.ensemble.members if self.stage == Stage.ENSEMBLE else 1
        return ladders * max(sweep.budgets)

    def most_trials(self, sweep: Outline) -> int:
        return 1


KINDS: dict[str, type[Task]] = {
    each.kind: each
    for each in (CraftPoison, TrainModel, MeasureReferences, TrainMember, MeasureEnsemble, RunStudy, RunTrial)
}


def to_wire(task: Task) -> dict[str, Any]:
    """The task as plain values, for other processes."""
    return {"kind": task.kind} | asdict(task)


def from_wire(wire: Mapping[str, Any]) -> Task:
    """The task that `to_wire` made plain values of."""
    fields = dict(wire)
    if "stage" in fields:
        fields["stage"] = Stage(fields["stage"])
    return KINDS[fields.pop("kind")](**fields)


def folder_of(name: str) -> str:
    """The folder of the task of that name."""
    return PART.sub("", name, count=1)


def ensemble_seeds(sweep: Outline, succeeded: Mapping[int, bool]) -> list[int]:
    """The confirmation scenarios that get an ensemble: none where no tuning scenario can choose what to compare.

    Args:
        sweep: the sweep.
        succeeded: whether the attack succeeded in a scenario, by seed.
    """
    if not sweep.ensemble.members or not any(succeeded[seed] for seed in sweep.seeds.tuning):
        return []
    return [seed for seed in sweep.seeds.confirmation if succeeded[seed]][: sweep.ensemble.scenarios]


def _folder(attack: str, what: str, discovery_rate: float = 1.0) -> str:
    share = "single" if discovery_rate == SINGLE else repr(discovery_rate)
    return f"{attack}--{what}" + ("" if discovery_rate == 1 else f"--found{share}")
