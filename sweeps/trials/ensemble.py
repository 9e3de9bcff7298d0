"""Trials on ensembles: a method unlearns many models of one scenario, and the distributions are compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any

import torch
from torch import Tensor, nn

from sweeps.schema.records import Trial
from sweeps.schema.stages import Stage
from sweeps.trials.reference_names import ENSEMBLE_REFERENCES
from sweeps.trials.scenario_cache import KEPT, Bench, ScenarioCache
from sweeps.trials.trial import Reference, Request, make_record, recorded
from unlearn_core.scenarios.ensemble import Outputs, Run, compare, halve, look, mean_rung, run_member, shadow_arrays
from unlearn_core.scenarios.scenario import Measured, Split, unlearn
from unlearn_core.training.budget import Rung


def train_members(work: ScenarioCache, attack: str, seed: int, number: int) -> None:
    """Train what an ensemble needs for its member `number`, where the store has not got it."""
    for role, numbers in (("corrupted", [number]), ("oracle", [2 * number, 2 * number + 1]), ("shadow", [number])):
        for model in numbers:
            work.member(attack, seed, role, model)


def run_ensemble_trial(work: ScenarioCache, request: Request, reference: Reference) -> Trial:
    """Unlearn every member and compare.

    A method that raises gives a record of status `failed` with its traceback; but for an error of the device, which
    may have been another process's doing.
    """
    return recorded(
        work,
        request,
        reference,
        lambda bench: partial(look, evaluator=bench.evaluator),
        lambda bench, asked, looking: Retrainings(work, bench, asked).climb(looking),
    )


def measure_ensembles(work: ScenarioCache, base: dict[str, Any], reference: Reference) -> list[Trial]:
    """What the ensemble trials of a scenario are compared with.

    Corrupted models as they are, and the second set of oracles, which is the noise floor.

    Args:
        work: Data and models of the sweep.
        base: Attack, seed, discovery rate and study of the requests.
        reference: The scenario's references.
    """
    trials = []
    for method in ENSEMBLE_REFERENCES:
        request = Request(
            **base, stage=Stage.ENSEMBLE, method=method, settings=None, budgets=(0.0 if method == "none" else 1.0,)
        )
        bench = work.bench(request.attack, request.seed, request.held_out)
        measured = Retrainings(work, bench, request).measure()
        trials.append(make_record(work, bench, request, reference, [measured]))
    return trials


@lru_cache(maxsize=KEPT)
def oracle_outputs(work: ScenarioCache, attack: str, seed: int) -> tuple[Outputs, ...]:
    """What the oracles of a scenario's ensemble say, two per member; they are the same for all methods."""
    evaluator = work.bench(attack, seed, "test").evaluator
    models = (work.member(attack, seed, "oracle", n).model for n in range(2 * work.sweep.ensemble.members))
    return tuple(look(model, evaluator) for model in models)


@dataclass(frozen=True)
class Retrainings:
    """The models of one scenario, for one trial."""

    work: ScenarioCache
    bench: Bench
    request: Request

    @property
    def numbers(self) -> range:
        return range(self.work.sweep.ensemble.members)

    @property
    def oracles(self) -> Sequence[Outputs]:
        return oracle_outputs(self.work, self.request.attack, self.request.seed)

    @cached_property
    def unseen(self) -> list[Tensor]:
        """Ids of the poisons that each shadow never saw."""
        return [self.work.unseen(self.bench.scenario, self.bench.poisoned, number) for number in self.numbers]

    def model(self, role: str, number: int) -> nn.Module:
        return self.work.member(self.request.attack, self.request.seed, role, number).model

    def measure(self) -> Measured:
        """The ensemble without unlearning.

        Of corrupted models (`none`), or the second set of oracles, in the place of members and shadows alike.
        """
        evaluator = self.bench.evaluator
        if self.request.method == "oracle":
            members = shadows = self.oracles[1::2]
            return Measured(self.bench.oracle.cost, self._compare(members, shadows), None)
        members, shadows = (
            [look(self.model(role, number), evaluator) for number in self.numbers] for role in ("corrupted", "shadow")
        )
        return Measured(Rung(0, 0, 0, 0.0, "finished"), self._compare(members, shadows), None)

    def climb(self, looking: Callable[[nn.Module], Outputs]) -> list[Measured]:
        """The rungs of an ensemble trial.

        Costs are means over the members that unlearn all discovered poisons; the shadows, which have half as many to
        unlearn, are left out of them.
        """
        split = self.work.split(self.bench, self.request.discovery_rate)
        members = [self._run("corrupted", number, split, looking) for number in self.numbers]
        shadows: list[Run] = []
        if self._all_forget(split):
            parts = (halve(split, ids) for ids in self.unseen)
            shadows = [self._run("shadow", number, part, looking) for number, part in enumerate(parts)]
        return [self._rung(members, shadows, index) for index in range(len(self.request.budgets))]

    def _all_forget(self, split: Split) -> bool:
        """Whether every shadow has a discovered poison to forget; a single one leaves half of them without."""
        return all(not bool(torch.isin(split.forget.ids, ids).all()) for ids in self.unseen)

    def _run(self, role: str, number: int, split: Split, looking: Callable[[nn.Module], Outputs]) -> Run:
        """One model up the ladder, with its own random streams, which are the same for all methods."""
        climb = partial(
            unlearn,
            self.request.settings,
            self.model(role, number),
            split,
            recipe=self.work.sweep.recipe,
            rng=self.bench.scenario.streams("unlearning", role, number),
            budgets=[share * self.bench.oracle.cost.flops for share in self.request.budgets],
        )
        return run_member(climb, looking)

    def _rung(self, members: Sequence[Run], shadows: Sequence[Run], index: int) -> Measured:
        outputs, others = ([run.outputs[index] for run in runs] for runs in (members, shadows))
        diverged = None in (*outputs, *others)
        rung = mean_rung([run.rungs[index] for run in members], diverged=diverged)
        finite, rest = ([one for one in some if one is not None] for some in (outputs, others))
        return Measured(rung, {} if diverged else self._compare(finite, rest), None)

    def _compare(self, members: Sequence[Outputs], shadows: Sequence[Outputs]) -> dict[str, float]:
        """shadows: one per member, or none where U-LiRA is undefined."""
        poisons = self.bench.evaluator.forget.ids
        halves = [~torch.isin(poisons, ids).cpu().numpy() for ids in self.unseen]
        arrays = shadow_arrays([one.forget_margins for one in shadows], halves) if shadows else {}
        return compare(members, self.oracles, arrays)
