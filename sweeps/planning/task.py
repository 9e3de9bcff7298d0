"""What all tasks have in common."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from sweeps.config.outline import Outline
from sweeps.config.shares import SINGLE

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
        """The tasks that must be done before.

        A study also waits for the references and ensembles of its threat: which ones there are, only records say.
        """
        return ()


def folder_name(attack: str, what: str, discovery_rate: float = 1.0) -> str:
    """The folder of one sort of an attack's records at a discovery rate."""
    share = "single" if discovery_rate == SINGLE else repr(discovery_rate)
    return f"{attack}--{what}" + ("" if discovery_rate == 1 else f"--found{share}")


def folder_of(name: str) -> str:
    """The folder of the task of that name."""
    return PART.sub("", name, count=1)
