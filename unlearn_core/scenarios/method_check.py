"""Whether a method can work on a model: it runs once, on a copy of the model and a few rows."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from unlearn_core.checks import InputError
from unlearn_core.scenarios.scenario import Split, begin
from unlearn_core.seeding import Streams
from unlearn_core.training import Recipe
from unlearn_core.training.budget import Meter, run_to_end
from unlearn_core.types import Examples, Task, Update

FORGET, SAME, OTHERS = 4, 2, 4  # rows to forget; rows to retain of each of their labels; further ones
REPEATED = 4  # updates of one kind in a row, after which a method is taken to go on like this
MOST = 64  # updates


def problem_of(method: Any, model: nn.Module, split: Split, recipe: Recipe, rng: Streams) -> Exception | None:
    """What goes wrong when every phase of a method runs on a copy of a model.

    Args:
        method: Its settings.
        model: Is left as it is.
        split: A few rows, as of `few_rows`.
        recipe: For methods that train by one; with one epoch.
        rng: The streams that the method draws from.

    Returns:
        The error, which may be any; None where it works.
    """
    net = copy.deepcopy(model)
    try:
        task = Task(net, split.retain, split.forget, dataclasses.replace(recipe, epochs=1), rng, lambda: 0.0)
        run_to_end(first_updates(begin(shortened(method), task)), net, Meter(rng.device, recipe.bf16))
        copy.deepcopy(net)  # as it is kept at each budget
    except Exception as problem:  # a method meets foreign models here, which may raise anything
        return problem
    return None


def one_line(problem: Exception) -> str:
    """The first line of an error, after its class if it was not written for users."""
    text = " ".join(str(problem).split("\n")[0].split())
    return text if isinstance(problem, InputError | NotImplementedError) else f"{type(problem).__name__}: {text}"


def few_rows(train: Examples) -> Split:
    """Some rows to forget, and some to retain: of the same labels, and others."""
    forget = train.rows(torch.arange(len(train))[:FORGET])
    return Split(train.rows(FORGET + _like(train.targets[FORGET:], forget.targets)), forget)


def few_of(split: Split) -> Split:
    """The same of rows that are split already."""
    forget = split.forget.rows(torch.arange(len(split.forget))[:FORGET])
    return Split(split.retain.rows(_like(split.retain.targets, forget.targets)), forget)


def _like(labels: Tensor, wanted: Tensor) -> Tensor:
    """Numbers of some rows with each of the labels `wanted`, and of some with others."""
    same = [(labels == label).nonzero().squeeze(1)[:SAME] for label in wanted.unique()]
    return torch.cat([*same, (~torch.isin(labels, wanted)).nonzero().squeeze(1)[:OTHERS]])


def shortened(method: Any) -> Any:
    """The same method with one pass, or step, in the place of several: each phase comes soon."""
    if not dataclasses.is_dataclass(method):
        return method
    counts = {
        field.name: 1
        for field in dataclasses.fields(method)
        if field.name.endswith(("epochs", "steps")) and _many(getattr(method, field.name))
    }
    try:
        return dataclasses.replace(method, **counts)  # type: ignore[type-var]  # an instance, not a class
    except InputError:  # settings that depend on each other
        return method


def _many(value: object) -> bool:
    return isinstance(value, int) and value > 1


def first_updates(updates: Iterator[Update]) -> Iterator[Update]:
    """The updates up to where one kind of them only comes again and again."""
    row, last = 0, None
    for number, update in enumerate(updates):  # asking for one does what the one before has announced
        row, last = row + 1 if update == last else 1, update
        if number == MOST or row > REPEATED:
            return
        yield update
