"""A scenario in memory: the poisoned data, the reference trainings, and the means to measure a model."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from unlearn_core.checks import InputError
from unlearn_core.metrics.relearn import TOLERANCE_NATS
from unlearn_core.models import build_model
from unlearn_core.models.building import ModelSettings
from unlearn_core.scenarios.evaluation import Evaluator, NotFiniteError, distances, fresh_noise, parameters_of, to_numpy
from unlearn_core.scenarios.relearning import Relearning, affordable_passes, forget_loss
from unlearn_core.seeding import Streams, derive, global_seed
from unlearn_core.training import Recipe, predict, train_updates
from unlearn_core.training.budget import Meter, Rung, climb, run_to_end
from unlearn_core.training.trainable import thaw_if_whole
from unlearn_core.types import Attack, Composite, CraftContext, Dataset, Examples, Poisoned, Task, Update

PROBE_ROWS = 2000  # rows of the retain set and of each probe that are looked at when a model is measured


class Trained(NamedTuple):
    """A trained model and what training it cost."""

    model: nn.Module
    cost: Rung


@dataclass(frozen=True)
class Scenario:
    """Data set, model, training recipe and attack under one seed. Settings objects come from the registries."""

    dataset: Dataset
    model: ModelSettings
    recipe: Recipe
    attack: Attack
    seed: int
    device: torch.device

    def __post_init__(self) -> None:
        name, text = self.dataset.name, self.dataset.tokenizer is not None
        if text != getattr(self.model, "reads_tokens", False):
            read, held = ("numbers", "token ids") if text else ("token ids", "numbers")
            fix = "choose gpt2" if text else "choose another"
            raise InputError(f"model {type(self.model).__name__} reads {read}, but {name} holds {held}; {fix}")
        if self.recipe.augmentation != "none" and len(self.dataset.input_shape) != 3:
            held = "text" if text else "a table"
            raise InputError(f"augmentation {self.recipe.augmentation!r} is for images, but {name} is {held}; set none")

    def streams(self, *labels: str | int) -> Streams:
        """Random streams for one concern of this scenario."""
        return Streams(derive(self.seed, *labels), self.device)

    def context(self, clean_model: Callable[[], nn.Module] | None = None) -> CraftContext:
        train_clean = clean_model or (lambda: self.train(self.dataset.train, "clean").model)
        return CraftContext(self.dataset, self.streams("attack"), train_clean)

    def fresh_model(self, label: str) -> nn.Module:
        data, seed = self.dataset, derive(self.seed, label, "init")
        model = build_model(self.model, input_shape=data.input_shape, classes=data.classes, seed=seed)
        return model.to(self.device).to(memory_format=torch.channels_last)  # faster convolutions, on CPUs too

    def train(self, examples: Examples, label: str = "train") -> Trained:
        """Train a fresh model on `examples` by the recipe.

        Corrupted model and oracle share the label `train`, hence their initialisation; another label gives an
        independent training.

        Raises:
            InputError: If the training diverges.
        """
        model = self.fresh_model(label)
        meter = Meter(self.device, self.recipe.bf16)
        rng = self.streams(label)
        with global_seed(layers_seed(rng)):
            cost = run_to_end(train_updates(model, examples, self.recipe, rng), model, meter)
        if cost.status == "diverged":
            raise InputError(f"training diverged: recipe lr {self.recipe.lr!r} is too large for this model; lower it")
        return Trained(model, cost)


class Split(NamedTuple):
    """What the unlearner is given: the discovered poisons, and everything else."""

    retain: Examples
    forget: Examples


def discovered_count(poisons: int, discovery_rate: float) -> int:
    """How many of so many poisons are found: the rounded share, but at least one, or there is nothing to unlearn."""
    return max(1, round(discovery_rate * poisons))


def discovery_order(poisoned: Poisoned, rng: Streams) -> Tensor:
    """(m,) numbers of the poisons, in the order of `poisoned.rows`, as they are discovered."""
    count, device = len(poisoned.rows), poisoned.rows.device
    by_position = poisoned.rows.argsort() if poisoned.mode == "replace" else torch.arange(count, device=device)
    return by_position[rng.permutation(count, "discovery").to(device)]


def split_poisoned(poisoned: Poisoned, train: Examples, *, discovery_rate: float, rng: Streams) -> Split:
    """Undiscovered poisons stay in the retain set, with their poisoned inputs and labels.

    Those discovered at a lower rate are among those at a higher.
    """
    full, mask = poisoned.apply(train)
    places = poisoned.rows if poisoned.mode == "replace" else mask.nonzero().squeeze(1)
    found = places[discovery_order(poisoned, rng)[: discovered_count(len(places), discovery_rate)]]
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
    scenario: Scenario,
    poisoned: Poisoned,
    held_out: Examples,
    references: Mapping[str, nn.Module],
    *,
    relearn: bool = False,
) -> Evaluator:
    """The evaluator of a scenario.

    Args:
        scenario: The scenario.
        poisoned: Its training set with the poisons.
        held_out: Validation rows for tuning, test rows for what is reported.
        references: The `corrupted` and the `oracle` model, or none of them; without them the metrics that compare with
            them are left out.
        relearn: Also measure how fast the poisons are learnt again, which needs both and costs up to about 2 % of the
            oracle's training for every model that is measured. The untrained network of `zrf` is a model as it is
            before training, with its pretrained weights where it has such.
    """
    rng, clean = scenario.streams("evaluation"), clean_rows(poisoned, scenario.dataset.train)
    sample = rng.permutation(len(clean), "retain").to(clean.targets.device)[:PROBE_ROWS]
    others, attack = {"test": held_out, "retain": clean.rows(sample)}, scenario.attack
    parts = attack.separate(poisoned) if isinstance(attack, Composite) else {}
    evaluator = replace(
        attack_evaluator(scenario, poisoned, others, references),
        references={name: parameters_of(model) for name, model in references.items()},
        parts={
            name: attack_evaluator(replace(scenario, attack=part.attack), part.poisoned, others, references)
            for name, part in parts.items()
        },
    )
    return with_relearning(evaluator, scenario, references["corrupted"], len(clean)) if relearn else evaluator


def attack_evaluator(
    scenario: Scenario, poisoned: Poisoned, others: Mapping[str, Examples], references: Mapping[str, nn.Module]
) -> Evaluator:
    """What the scenario's attack is measured on. others: the held-out (`test`) rows and the sample of `retain` rows."""
    train, rng = scenario.dataset.train, scenario.streams("evaluation")
    evaluator = Evaluator(
        held_out=others["test"],
        retain=others["retain"],
        forget=poison_rows(poisoned, train),
        probes=scenario.attack.probes(head(others["test"], PROBE_ROWS), scenario.context()),
        evidence=poisoned.evidence,
        fresh_noise=fresh_noise(poisoned, Streams(rng.seed, torch.device("cpu"))("fresh noise")),
    )
    constants = {"forget_true": train.targets[poisoned.rows]} | constant_arrays(evaluator.sets, references)
    constants["untrained_forget_logits"] = predict(scenario.fresh_model("untrained"), evaluator.forget.inputs)
    return replace(evaluator, constants=to_numpy(constants))


def constant_arrays(sets: Mapping[str, Examples], references: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """What the metrics need of the reference models themselves.

    The oracle's logits on every set, and how far it is from the corrupted model. Empty without references.
    """
    if not references:
        return {}
    oracle, corrupted = references["oracle"], references["corrupted"]
    logits = {f"oracle_{name}_logits": predict(oracle, rows.inputs) for name, rows in sets.items()}
    return logits | {"oracle_from_corrupted": distances(oracle, parameters_of(corrupted))}


def with_relearning(evaluator: Evaluator, scenario: Scenario, corrupted: nn.Module, clean_rows: int) -> Evaluator:
    """The same evaluator, which also teaches a copy of each model the poisons until it is where `corrupted` was."""
    forget, recipe = evaluator.forget, scenario.recipe
    target = forget_loss(corrupted, forget) + TOLERANCE_NATS
    passes = affordable_passes(forget_rows=len(forget), oracle_row_passes=recipe.epochs * clean_rows)
    relearning = Relearning(forget, recipe, scenario.streams("evaluation"), target, passes)
    constants = {**evaluator.constants, "relearn_target": np.array(target)}
    return replace(evaluator, constants=constants, relearning=relearning)


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

    Parameters of `corrupted` that are frozen stay as they are, unless all of them are.

    An anytime method runs once and is measured on the way; another runs once per budget.
    """
    measured: list[Measured] = []
    for ladder in ladders(method, budgets):
        if rng.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(rng.device)
        with global_seed(layers_seed(rng)):
            for rung, model in climb_ladder(method, corrupted, split, recipe=recipe, rng=rng, ladder=ladder):
                memory = torch.cuda.max_memory_allocated(rng.device) if rng.device.type == "cuda" else None
                measured.append(measure(rung, model, evaluator, memory))
    return measured


def ladders(method: Any, budgets: Sequence[float]) -> list[list[float]]:
    """The budgets of each run: all in one, or one run each for a method whose schedule needs its end."""
    return [list(budgets)] if method.anytime else [[budget] for budget in budgets]


def layers_seed(rng: Streams) -> int:
    """Seed of torch's global stream during a run: dropout, where a model has it, takes no generator."""
    return derive(rng.seed, "layers")


def climb_ladder(
    method: Any, corrupted: nn.Module, split: Split, *, recipe: Recipe, rng: Streams, ladder: Sequence[float]
) -> Iterator[tuple[Rung, nn.Module]]:
    """One run of `method` from a copy of `corrupted`, paused at each budget of `ladder` (FLOPs).

    Yields:
        Each rung with the model in that state; the next step changes this very model.
    """
    model = thaw_if_whole(copy.deepcopy(corrupted))
    meter = Meter(rng.device, recipe.bf16)
    task = Task(model, split.retain, split.forget, recipe, rng, share_spent(meter, ladder[-1]))
    for rung in climb(begin(method, task), model, meter, ladder):
        yield rung, model


def begin(method: Any, task: Task) -> Iterator[Update]:
    """The method's updates.

    Nothing happens before the first is asked for: a method that is no generator function and works right away is
    charged for it, too.

    Yields:
        Each update, before it is made.
    """
    yield from method.updates(task)


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
