"""SCRUB that goes back to the epoch at which it errs on the forget set as it errs on clean rows that it left out."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from unlearn_core import checks
from unlearn_core.checks import InputError
from unlearn_core.registry import UNLEARNERS
from unlearn_core.training import predict, split_rows
from unlearn_core.types import Examples, Task, Update
from unlearn_core.unlearners.scrub import SCRUB


@UNLEARNERS.register("scrub_r")
@dataclass(frozen=True, kw_only=True)
class SCRUBR(SCRUB):
    """SCRUB+R: SCRUB, rewound to the epoch whose error on the forget set is nearest to the error on held-out rows.

    Held out from the retain set are max(1, round(held_out_share · rows)) random rows of each label that the forget set
    has; SCRUB never trains on them, though the corrupted model was. The reference is the error of the last epoch's
    model on them, each label weighted by its share of the forget set; "error" is top-1, against the labels the rows
    came with. Of equally near epochs the last is taken.
    The model given is the rewound one after every epoch: that of a run with so many epochs. So a run stopped at any
    budget has its method's answer; what was spent on an unfinished epoch is lost, and before the end of the first epoch
    nothing has changed. For that the reference is measured after every epoch; both errors are announced and charged.
    Keeps a copy of the model for each epoch. A run whose last model gives no finite logits has diverged.

    Source: Kurmanji, Triantafillou, Hayes, Triantafillou, NeurIPS 2023, arXiv:2302.09880. Deviations: they hold out
    rows of the distribution of the forget set, which for poisons nobody has: ours are presumed clean and share the
    labels only. They measure the reference once, at the end.
    """

    needs: ClassVar[tuple[str, ...]] = ("forget", "forget_labels", "retain", "retain_labels")

    held_out_share: float = 0.1  # share of the retain rows of each label in the forget set that is not trained on

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.in_range("held_out_share", self.held_out_share, 0, 0.9)

    def updates(self, task: Task) -> Iterator[Update]:
        held_out, trained = split_held_out(task, self.held_out_share)
        weights = label_weights(held_out.targets, task.forget.targets)
        student = copy.deepcopy(task.model)
        states: list[dict[str, Tensor]] = []
        errors: list[float] = []
        for epoch in self.epoch_updates(replace(task, model=student, retain=task.retain.rows(trained))):
            yield from epoch
            wrong = yield from mistakes(student, task.forget, chunk=self.batch_size)
            errors.append(wrong.mean().item())
            wrong = yield from mistakes(student, held_out, chunk=self.batch_size)
            states.append(copy.deepcopy(student.state_dict()))
            task.model.load_state_dict(states[nearest(errors, (weights * wrong).sum().item())])


def split_held_out(task: Task, share: float) -> tuple[Examples, Tensor]:
    """The held-out rows, and the (k,) positions of all other retain rows in their order.

    Raises:
        InputError: If no retain row has a label of the forget set, or if none is left to train on.
    """
    targets = task.retain.targets
    order = torch.randperm(len(targets), generator=task.rng("held out"), device=targets.device)
    chosen = torch.zeros_like(targets, dtype=torch.bool)
    for label in task.forget.targets.unique():
        rows = order[targets[order] == label]
        chosen[rows[: max(1, round(share * len(rows)))]] = True
    if not chosen.any() or chosen.all():
        raise InputError(
            "scrub_r needs retain rows with the labels of the forget set, and others to train on, but it can hold out "
            f"{int(chosen.sum())} of {len(chosen)}; choose scrub"
        )
    return task.retain.rows(chosen), (~chosen).nonzero().squeeze(1)


def label_weights(held_out: Tensor, forget: Tensor) -> Tensor:
    """(n,) weights with sum 1 that give the (n,) labels `held_out` the distribution of `forget`, where they can."""
    classes = 1 + int(torch.cat([held_out, forget]).max())
    wanted, there = (torch.bincount(labels, minlength=classes).double() for labels in (forget, held_out))
    weights = (wanted / there)[held_out]
    return weights / weights.sum()


def mistakes(model: nn.Module, examples: Examples, *, chunk: int) -> Generator[Update, None, Tensor]:
    """(n,) 1.0 where the model is wrong, 0.0 where it is right, NaN where its logits are not finite.

    The model is in evaluation mode.

    Yields:
        An update for each `chunk` rows.
    """
    parts = []
    for rows in split_rows(torch.arange(len(examples), device=examples.targets.device), chunk):
        yield Update("error", len(rows))
        logits = predict(model, examples.inputs[rows])
        wrong = (logits.argmax(1) != examples.targets[rows]).double()
        parts.append(torch.where(logits.isfinite().all(1), wrong, torch.nan))
    return torch.cat(parts)


def nearest(errors: list[float], reference: float) -> int:
    """Position of the error nearest to `reference`, the last of equal ones.

    The last if that one or `reference` is NaN.
    """
    last = len(errors) - 1
    if math.isnan(reference) or math.isnan(errors[last]):
        return last
    gaps = [math.inf if math.isnan(error) else abs(error - reference) for error in errors]
    return last - gaps[::-1].index(min(gaps))
