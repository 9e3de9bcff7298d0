"""Sections of a sweep: which rows, which seeds, how settings are searched, how many retrainings, what a task gets."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any

from unlearn_core.checks import InputError, shown
from unlearn_core.ranges import NOT_NEGATIVE, POSITIVE, check, one_of, within

MOST_SEEDS = 1000  # of a list
MOST_PROPOSALS = 100_000
MOST_SECONDS = 30 * 24 * 3600.0
LEAST_MEMBERS, MOST_MEMBERS = 8, 10_000  # of an ensemble: U-LiRA fits Gaussians to three pairs of shadows at least
SEED = within(0, 2**63 - 1)


@dataclass(frozen=True, kw_only=True)
class DataRows:
    """Which part of the data set is used, and how large images are."""

    train_rows: Annotated[int | None, POSITIVE] = None  # rows to train on; all by default
    held_out_rows: Annotated[int | None, POSITIVE] = None  # rows for validation and test; all by default
    validation_share: Annotated[float, within(0.01, 0.99)] = 1 / 3  # share of the held-out rows for tuning only
    side: Annotated[int | None, POSITIVE] = None  # pixels that images are resized to; by default they stay as they are

    def __post_init__(self) -> None:
        check(self)

    def to_dict(self) -> dict[str, Any]:
        """All settings; without a `side` that changes nothing, because older sweeps were identified without it."""
        return {k: v for k, v in dataclasses.asdict(self).items() if (k, v) != ("side", None)}


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """Scenario seeds: hyperparameters are chosen on the first, every reported number comes from the second."""

    tuning: Annotated[tuple[int, ...], SEED] = (0,)  # seeds of the scenarios that settings are chosen on
    confirmation: Annotated[tuple[int, ...], SEED] = (1, 2, 3)  # seeds of the scenarios that are reported; other ones

    def __post_init__(self) -> None:
        for name, seeds in dataclasses.asdict(self).items():
            if len(seeds) > MOST_SEEDS:
                raise InputError(f"{name} lists {len(seeds):,} seeds; list at most {MOST_SEEDS:,}")
            if not seeds or len(set(seeds)) < len(seeds):
                raise InputError(f"{name} must list distinct seeds and not be empty, but got {shown(list(seeds))}")
        check(self)
        if both := sorted(set(self.tuning) & set(self.confirmation)):
            raise InputError(f"confirmation must not repeat tuning seeds, but both hold {both}; use fresh seeds")

    def scenarios(self, methods: Collection[str]) -> tuple[int, ...]:
        """Seeds of all scenarios, those that are reported first; without methods there is nothing to tune."""
        return (*self.confirmation, *(self.tuning if methods else ()))


@dataclass(frozen=True, kw_only=True)
class Search:
    """How each study proposes settings."""

    mode: Annotated[str, one_of("fair", "best")] = "fair"  # `fair`: a study per attack and method; `best`: per attack
    sampler: Annotated[str, one_of("tpe", "random", "grid")] = "tpe"  # how proposals are made
    trials: Annotated[int, within(1, MOST_PROPOSALS)] = 8  # proposals per study; a grid has as many as it has points
    startup: Annotated[int, NOT_NEGATIVE] = 10  # TPE: proposals drawn at random before it models the history
    batch: Annotated[int, within(1, MOST_PROPOSALS)] = 4  # TPE: proposals from the same history, tried at once
    grid_points: Annotated[int, within(1, MOST_PROPOSALS)] = 3  # grid: points per numeric range
    seed: Annotated[int, SEED] = 0  # seed of the proposals

    def __post_init__(self) -> None:
        check(self)
        if self.mode == "best" and self.sampler == "grid":
            raise InputError("sampler 'grid' cannot search over methods (mode 'best'); use 'tpe' or 'random'")


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """Retrainings for the metrics that compare distributions over them: KLOM, U-LiRA, the NeurIPS 2023 score.

    A scenario needs four trainings per member (a corrupted model, two oracles, a shadow model with half of the
    poisons), shared by all methods; a configuration chosen by a study then unlearns two of those per member.
    """

    members: Annotated[int, within(0, MOST_MEMBERS)] = 0  # models of each kind, even, at least 8; 0: no such metrics
    scenarios: Annotated[int, within(1, MOST_MEMBERS)] = 1  # confirmation scenarios that get them

    def __post_init__(self) -> None:
        check(self)
        if self.members and (self.members < LEAST_MEMBERS or self.members % 2):
            raise InputError(f"members must be 0 (off) or an even number from {LEAST_MEMBERS}, but got {self.members}")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What one task gets while it runs, and its trials. Does not change any result."""

    cpus: Annotated[float, POSITIVE] = 1  # processor cores; above 1 a whole number
    gpus: Annotated[float, NOT_NEGATIVE] = 0  # GPUs; 1: as large a share of one as the memory needs, measured first
    trial_timeout: Annotated[float | None, within(1, MOST_SECONDS)] = None  # seconds; by default far more than needed

    def __post_init__(self) -> None:
        check(self)
        for name, amount in (("cpus", self.cpus), ("gpus", self.gpus)):
            if amount > 1 and amount != int(amount):
                raise InputError(f"{name} above 1 must be a whole number, but got {amount!r}")
