"""Fine-tuning on everything, with random labels on the forget set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from unlearn_core import checks
from unlearn_core.registry import UNLEARNERS
from unlearn_core.space import Choice, Float, Int, Range
from unlearn_core.training import batches, descend, predict, rows_of, schedule_factor, steps_per_epoch
from unlearn_core.types import Examples, Task, Update
from unlearn_core.unlearners.settings import LoopSettings, cross_entropy, loop_space


@UNLEARNERS.register("random_labels")
@dataclass(frozen=True, kw_only=True)
class RandomLabels(LoopSettings):
    """Random labels ("amnesiac"): minimises the mean cross-entropy over retain and forget rows, the latter relabelled.

    ỹ ~ U(labels) on the forget set, without the label that the row came with if `exclude_true` (a poison's label is
    what must be unlearned); drawn anew in every epoch if `redraw`. Redrawn labels give an unbiased estimate of the
    gradient of KL(U ‖ p) there. `mixed` shuffles both sets into one pass, `forget_first` passes over the forget set and
    then over the retain set in every epoch. Without forget rows it is GD bit for bit.

    Source: Graves, Nagisetty, Ganesh, AAAI 2021, arXiv:2010.10981; Golatkar, Achille, Soatto, CVPR 2020,
    arXiv:1911.04933. Deviation: Graves et al. relabel in one pass and then fine-tune; later code has both orders.
    """

    needs: ClassVar[tuple[str, ...]] = ("forget", "forget_labels", "retain", "retain_labels")

    exclude_true: bool = True
    redraw: bool = True
    order: str = "mixed"
    retain_share: float = 1.0  # share of the retain rows that is used, one sample for all epochs

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.one_of("order", self.order, ("mixed", "forget_first"))
        checks.in_range("retain_share", self.retain_share, 0, 1)

    def updates(self, task: Task) -> Iterator[Update]:
        return self.tune(task, self.optimizer_for(task.model))

    def tune(self, task: Task, optimizer: torch.optim.Optimizer) -> Iterator[Update]:
        """All epochs, with steps of `optimizer`."""
        self.set_mode(task.model)
        retain = sample(task.retain, self.retain_share, task.rng("sample"))
        passes = self._passes(retain, task.forget)
        total = self.epochs * sum(steps_per_epoch(len(part), self.batch_size) for part in passes.values())
        return descend(
            self._batches(task, retain),
            lambda batch: cross_entropy(task.model, batch),
            optimizer,
            phase="relabelled",
            size=rows_of,
            lr=lambda step: self.lr * schedule_factor(self.schedule, min(1.0, step / total)),
        )

    def _batches(self, task: Task, retain: Examples) -> Iterator[tuple[Tensor, Tensor]]:
        classes = count_classes(task.model, task.forget.inputs) if len(task.forget) else 2  # of no labels to draw
        for epoch in range(self.epochs):
            random = task.rng("labels", epoch if self.redraw else 0)
            targets = random_labels(task.forget.targets, classes, random, exclude_true=self.exclude_true)
            for label, part in self._passes(retain, replace(task.forget, targets=targets)).items():
                yield from batches(
                    part, self.batch_size, task.rng, label, epochs=[epoch], augmentation=task.recipe.augmentation
                )

    def _passes(self, retain: Examples, forget: Examples) -> dict[str, Examples]:
        """The sets that an epoch passes over, by the name of their data order."""
        if self.order == "forget_first":
            return {"forget": forget, "retain": retain}
        return {"retain": joined(retain, forget)}

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return loop_space(lr=Float(1e-4, 0.1, log=True), epochs=Int(1, 10)) | {
            "order": Choice(("mixed", "forget_first")),
            "redraw": Choice((True, False)),
            "retain_share": Choice((0.0, 0.1, 0.3, 1.0)),
        }


def random_labels(targets: Tensor, classes: int, random: torch.Generator, *, exclude_true: bool) -> Tensor:
    """(n,) labels drawn uniformly from all `classes`, or from all but the row's own in `targets`."""
    if exclude_true:
        shift = torch.randint(1, classes, targets.shape, generator=random, device=targets.device)
        return (targets + shift) % classes
    return torch.randint(classes, targets.shape, generator=random, device=targets.device)


def count_classes(model: nn.Module, inputs: Tensor) -> int:
    """Number of logits, found with one row and outside of any count of FLOPs."""
    with _disable_current_modes():
        return predict(model, inputs[:1]).shape[1]


def sample(examples: Examples, share: float, random: torch.Generator, *, least: int = 0) -> Examples:
    """A random `share` of the rows, at least `least`; all of them, in their order, if share is 1."""
    if share == 1:
        return examples
    order = torch.randperm(len(examples), generator=random, device=examples.targets.device)
    return examples.rows(order[: max(least, round(share * len(examples)))])


def joined(first: Examples, second: Examples) -> Examples:
    """The rows of both."""
    return Examples(
        torch.cat([first.inputs, second.inputs]),
        torch.cat([first.targets, second.targets]),
        torch.cat([first.ids, second.ids]),
    )
