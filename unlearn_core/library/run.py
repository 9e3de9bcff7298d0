"""Unlearning by budget as one call, on the engine that sweeps use."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from unlearn_core.library.data import Rows, check_augmentation, check_outputs, check_rows
from unlearn_core.library.trying import check_works, price
from unlearn_core.library.words import (
    check_budgets,
    check_method,
    check_mode,
    check_model,
    check_needs,
    check_recipe,
    check_reference,
    check_seed,
    copied,
)  # fmt: skip
from unlearn_core.scenarios.scenario import Split, climb_ladder, ladders, layers_seed
from unlearn_core.seeding import Streams, derive
from unlearn_core.training.recipe import Recipe


class Rung(NamedTuple):
    """The state of a run at one budget.

    Attributes:
        budget: as it was given, a share of the reference.
        model: the unlearned model in evaluation mode, a copy that is yours.
        flops: floating-point operations spent so far.
        share_spent: the same as a share of the reference.
        steps: updates made so far.
        seconds: time they took.
        status: `ok` (there was more to do), `finished` (the method ended early), `unaffordable` (not even one update
            fits into the budget: the model is as it was given) or `diverged` (it holds numbers that are not finite).
    """

    budget: float
    model: nn.Module
    flops: int
    share_spent: float
    steps: int
    seconds: float
    status: str


class UnlearningRun:
    """Rungs of a run, computed when they are asked for and then kept.

    Iterate as often as you like: each update is made once. A rung keeps its model, so pass fewer budgets if memory is
    short.
    """

    def __init__(self, rungs: Iterator[Rung], budgets: Sequence[float]) -> None:
        self.budgets = tuple(budgets)
        self._rest = rungs
        self._made: list[Rung] = []

    def __len__(self) -> int:
        return len(self.budgets)

    def __iter__(self) -> Iterator[Rung]:
        return map(self._rung, range(len(self)))

    @property
    def last(self) -> Rung:
        """The rung of the largest budget; runs to the end first."""
        return self._rung(len(self) - 1)

    def _rung(self, number: int) -> Rung:
        while len(self._made) <= number:
            check_mode()
            rung = next(self._rest, None)
            if rung is None:
                raise RuntimeError("this run was ended by an error or an interruption; call unlearn again")
            self._made.append(rung)
        return self._made[number]

    def __repr__(self) -> str:
        done = [f"{100 * rung.budget:g} % {rung.status}" for rung in self._made]
        waiting = [f"{100 * budget:g} % not run yet" for budget in self.budgets[len(done) :]]
        return f"UnlearningRun({', '.join([*done, *waiting])})"


def unlearn(
    model: nn.Module,
    method: Any,
    *,
    retain: Rows = None,
    forget: Rows = None,
    budgets: Sequence[float],
    reference: Recipe | float,
    seed: int = 0,
) -> UnlearningRun:
    """Unlearn `forget` from `model`, paused at each budget.

    This call checks everything, which includes a few updates of copies of the model. The rungs are computed when the
    result is iterated, from copies of the model and the rows: what is done to these after the call changes no rung.
    The same seed and data give the same weights as a trial of a sweep, bit for bit, on the same machine.

    Args:
        model: a classifier that gives logits (n, classes), float32 on one device. It is never changed. What is frozen
            in it stays as it is, unless all of it is.
        method: one of `unlearn_core.unlearners`, with its settings: `SCRUB(lr=0.01)`.
        retain: what to keep, (inputs, labels) as tensors or numpy arrays: inputs (n, *shape) float as the model reads
            them, or (n, length) integer token ids; labels (n,) class numbers from 0. Labels may be None where the
            method does without, and so may the whole set.
        forget: what to remove, likewise.
        budgets: shares of the reference, above 0 and increasing: 0.1 is a tenth of its FLOPs.
        reference: what retraining costs: the recipe by which it would be done on `retain`, or its FLOPs.
        seed: everything random follows from it; not negative.

    Returns:
        A run; iterate over it, or ask for its `last` rung.

    Raises:
        InputError: for an argument that cannot work, in one line.
    """
    check_mode()
    check_method(method)
    check_model(model)
    shares = check_budgets(budgets)
    check_reference(reference, method)
    stream = _stream(check_seed(seed))
    check_needs(method, retain=retain, forget=forget)
    if isinstance(reference, Recipe):
        check_recipe(reference, retain)
    net, rng = copied(model), Streams(stream, next(model.parameters()).device)
    split = check_rows(net, retain, forget, rng.device)
    if isinstance(reference, Recipe):
        check_augmentation(reference, split)
    check_outputs(net, split)
    recipe = reference if isinstance(reference, Recipe) else Recipe()
    check_works(method, net, split, recipe, rng)
    whole = price(net, split.retain, recipe) if isinstance(reference, Recipe) else float(reference)
    return UnlearningRun(_priced(net, method, split, shares, whole, recipe, rng), shares)


def _priced(
    model: nn.Module, method: Any, split: Split, shares: Sequence[float], whole: float, recipe: Recipe, rng: Streams
) -> Iterator[Rung]:
    """The rungs, with what they cost as a share of `whole`, the FLOPs of the reference."""
    rungs = _rungs(model, method, split, recipe, [share * whole for share in shares], rng)
    for share, (rung, net) in zip(shares, rungs, strict=True):
        yield Rung(share, net, rung.flops, rung.flops / whole, rung.steps, rung.seconds, rung.status)


def _stream(seed: int) -> int:
    """The seed under which a sweep unlearns in the scenario of this seed."""
    return derive(seed, "unlearning", 0)


def _rungs(
    model: nn.Module, method: Any, split: Split, recipe: Recipe, budgets: Sequence[float], rng: Streams
) -> Iterator[tuple[Any, nn.Module]]:
    for ladder in ladders(method, budgets):
        climbing = climb_ladder(method, model, split, recipe=recipe, rng=rng, ladder=ladder)
        for rung, net in _apart(climbing, layers_seed(rng)):
            yield rung, _copy(net)


def _apart(rungs: Iterator[tuple[Any, nn.Module]], seed: int) -> Iterator[tuple[Any, nn.Module]]:
    """`rungs`, made under a global stream that the caller's own draws between two of them neither see nor change."""
    state = torch.Generator().manual_seed(seed).get_state()
    while True:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            torch.set_rng_state(state)
            made = next(rungs, None)
            state = torch.get_rng_state()
        if made is None:
            return
        yield made


def _copy(net: nn.Module) -> nn.Module:
    """The caller's to keep; without gradients, which the run goes on using."""
    kept = copy.deepcopy(net).eval()
    kept.zero_grad(set_to_none=True)
    return kept
