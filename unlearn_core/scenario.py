"""A scenario in memory: the poisoned data, the reference trainings, and the means to measure a model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unlearn_core.budget import Meter, Rung, climb, run_to_end
from unlearn_core.checks import InputError
from unlearn_core.evaluation import Evaluator, NotFiniteError, Weights, fresh_noise
from unlearn_core.models import build_model
from unlearn_core.seeding import Streams, derive
from unlearn_core.training import Recipe, train_updates
from unlearn_core.types import CraftContext, Dataset, Examples, Poisoned, Task

PROBE_ROWS = 2000  # rows of the retain set and of each probe that are looked at when a model is measured


class Trained(NamedTuple):
    """A trained model and what training it cost."""

    model: nn.Module
    cost: Rung


@dataclass(frozen=True)
class Scenario:
    """Data set, model, training recipe and attack under one seed. Settings objects come from the registries."""

    dataset: Dataset
    model: Any
    recipe: Recipe
    attack: Any
    seed: int
    device: torch.device

    def streams(self, *labels: str | int) -> Streams:
        """Random streams for one concern of this scenario."""
        return Streams(derive(self.seed, *labels), self.device)

    def context(self, clean_model: Callable[[], nn.Module] | None = None) -> CraftContext:
        train_clean = clean_model or (lambda: self.train(self.dataset.train, "clean").model)
        return CraftContext(self.dataset, self.streams("attack"), train_clean)

    def fresh_model(self, label: str) -> nn.Module:
        shape = tuple(self.dataset.train.inputs.shape[1:])
        seed = derive(self.seed, label, "init")
        model = build_model(self.model, input_shape=shape, classes=self.dataset.classes, seed=seed)
        return model.to(self.device).to(memory_format=torch.channels_last)  # faster convolutions, on CPUs too

    def train(self, examples: Examples, label: str = "train") -> Trained:
        """Train a fresh model on `examples` by the recipe. Corrupted model and oracle share the label `train`, hence
        their initialisation; another label gives an independent training."""
        model = self.fresh_model(label)
        meter = Meter(self.device, self.recipe.bf16)
        cost = run_to_end(train_updates(model, examples, self.recipe, self.streams(label)), model, meter)
        if cost.status == "diverged":
            raise InputError(f"training diverged: recipe lr {self.recipe.lr!r} is too large for this model; lower it")
        return Trained(model, cost)


class Split(NamedTuple):
    """What the unlearner is given: the discovered poisons, and everything else."""

    retain: Examples
    forget: Examples


def split_poisoned(poisoned: Poisoned, train: Examples, *, discovery_rate: float, rng: Streams) -> Split:
    """Undiscovered poisons stay in the retain set; those discovered at a lower rate are among those at a higher."""
    full, mask = poisoned.apply(train)
    positions = mask.nonzero().squeeze(1)
    order = torch.randperm(len(positions), generator=rng("discovery"), device=positions.device)
    found = positions[order[: max(1, round(discovery_rate * len(positions)))]]
    known = torch.zeros_like(mask)
    known[found] = True
    return Split(full.rows(~known), full.rows(known))


def clean_rows(poisoned: Poisoned, train: Examples) -> Examples:
    """The oracle's training set: no poison, and for `replace` attacks not the overwritten originals either."""
    full, mask = poisoned.apply(train)
    return full.rows(~mask)


def poison_rows(poisoned: Poisoned, train: Examples) -> Examples:
    """All poisons as they were trained on, in the order of `poisoned.rows` (the order of its evidence)."""
    if poisoned.mode == "append":
        full, mask = poisoned.apply(train)
        return full.rows(mask)
    return Examples(poisoned.inputs, poisoned.targets, train.ids[poisoned.rows])


def check_classes(kept: Tensor, classes: int) -> None:
    """Every class must keep a clean row, or there is no oracle to compare with. kept: (n,) labels of clean rows."""
    empty = [c for c, count in enumerate(torch.bincount(kept, minlength=classes).tolist()) if count == 0]
    if empty:
        raise InputError(f"poison fraction leaves no clean training row of class {empty[0]}; lower it")


def build_evaluator(
    scenario: Scenario, poisoned: Poisoned, held_out: Examples, references: Mapping[str, Weights]
) -> Evaluator:
    """The evaluator of a scenario on `held_out` rows (validation for tuning, test for what is reported)."""
    train, rng = scenario.dataset.train, scenario.streams("evaluation")
    clean = clean_rows(poisoned, train)
    sample = torch.randperm(len(clean), generator=rng("retain"), device=clean.targets.device)[:PROBE_ROWS]
    return Evaluator(
        held_out=held_out,
        retain=clean.rows(sample),
        forget=poison_rows(poisoned, train),
        probes=scenario.attack.probes(head(held_out, PROBE_ROWS), scenario.context()),
        evidence=poisoned.evidence,
        fresh_noise=fresh_noise(poisoned, Streams(rng.seed, torch.device("cpu"))("fresh noise")),
        references=references,
    )


def head(examples: Examples, rows: int) -> Examples:
    """The first rows; held-out sets are shuffled when they are loaded."""
    return Examples(examples.inputs[:rows], examples.targets[:rows], examples.ids[:rows])


class Measured(NamedTuple):
    """One rung of a trial: what was spent, and what the model was like (empty when it diverged)."""

    rung: Rung
    metrics: dict[str, float]
    peak_memory_bytes: int | None


def unlearn(
    method: Any,
    corrupted: nn.Module,
    split: Split,
    *,
    recipe: Recipe,
    rng: Streams,
    budgets: Sequence[float],
    evaluator: Callable[[nn.Module], dict[str, float]],
) -> list[Measured]:
    """Run `method` from a copy of `corrupted` up the ladder of `budgets` (FLOPs, increasing).

    An anytime method runs once and is measured on the way; another runs once per budget.
    """
    runs = [list(budgets)] if method.anytime else [[budget] for budget in budgets]
    measured: list[Measured] = []
    for ladder in runs:
        model = copy.deepcopy(corrupted).requires_grad_(True)
        meter = Meter(rng.device, recipe.bf16)
        task = Task(model, split.retain, split.forget, recipe, rng, share_spent(meter, ladder[-1]))
        if rng.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(rng.device)
        for rung in climb(method.updates(task), model, meter, ladder):
            memory = torch.cuda.max_memory_allocated(rng.device) if rng.device.type == "cuda" else None
            measured.append(measure(rung, model, evaluator, memory))
    return measured


def measure(
    rung: Rung, model: nn.Module, evaluator: Callable[[nn.Module], dict[str, float]], peak_memory_bytes: int | None
) -> Measured:
    """The model's metrics at this rung. One whose outputs overflow, though its weights do not, has diverged too."""
    if rung.status != "diverged":
        try:
            return Measured(rung, evaluator(model), peak_memory_bytes)
        except NotFiniteError:
            rung = rung._replace(status="diverged")
    return Measured(rung, {}, peak_memory_bytes)


def share_spent(meter: Meter, budget: float) -> Callable[[], float]:
    """How much of `budget` (FLOPs) the run on this meter has used, in [0, 1]."""
    return lambda: min(1.0, meter.flops / budget)
