"""Two teachers: a random one for the forget set, the corrupted model for the rest."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from unlearn_core import checks
from unlearn_core.models.initialise import initialise
from unlearn_core.registry import UNLEARNERS
from unlearn_core.seeding import derive
from unlearn_core.space import Choice, Float, Int, Range
from unlearn_core.types import Examples, Task, Update
from unlearn_core.unlearners.random_labels import joined, sample
from unlearn_core.unlearners.scrub import distillation
from unlearn_core.unlearners.settings import LoopSettings, loop_space


@UNLEARNERS.register("bad_teacher")
@dataclass(frozen=True, kw_only=True)
class BadTeacher(LoopSettings):
    """Bad teacher: imitates an untrained model on the forget set and the corrupted model on retain rows.

    Minimises τ² mean KL(softmax(z_q/τ) ‖ softmax(z/τ)) over a shuffled mix of forget rows and a share of the retain
    rows, where q is a freshly initialised model on forget rows and a frozen copy of the corrupted model on retain rows;
    both in evaluation mode. Reads no labels. A row is run through its own teacher only, and that pass is charged.

    Source: Chundawat, Tarun, Mandal, Kankanhalli, AAAI 2023, arXiv:2205.08096.
    Deviations: a mean over rows, where the authors' code divides by the number of classes as well; the factor τ², so
    that the step size need not follow τ; only one teacher per row (the authors run both, for the same loss).
    """

    needs: ClassVar[tuple[str, ...]] = ("forget", "retain", "initialisation")

    lr: float = 1e-4
    epochs: int = 1  # passes over the forget rows and the retain sample
    batch_size: int = 256
    weight_decay: float = 0.0
    optimizer: str = "adamw"
    temperature: float = 1.0
    retain_share: float = 0.3  # share of the retain rows that is used, one sample for all epochs

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.positive(temperature=self.temperature)
        checks.in_range("retain_share", self.retain_share, 0, 1)

    def updates(self, task: Task) -> Iterator[Update]:
        competent = copy.deepcopy(task.model).eval().requires_grad_(False)
        untrained = copy.deepcopy(task.model)
        initialise(untrained, derive(task.rng.seed, "teacher"))
        untrained.eval().requires_grad_(False)
        self.set_mode(task.model)

        def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
            inputs, is_forget = batch
            target = chosen_logits(untrained, competent, inputs, is_forget)
            return distillation(target, task.model(inputs).float(), self.temperature)

        retain = sample(task.retain, self.retain_share, task.rng("sample"))
        rows = joined(marked(retain, False), marked(task.forget, True))
        return self.loop(task, rows, loss, optimizer=self.optimizer_for(task.model), label="distil")

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return loop_space(lr=Float(1e-5, 1e-2, log=True), epochs=Int(1, 10)) | {
            "retain_share": Choice((0.1, 0.3, 1.0)),
            "temperature": Choice((1.0, 2.0, 4.0)),
        }


def marked(examples: Examples, is_forget: bool) -> Examples:
    """The rows with a flag in the place of their labels."""
    return replace(examples, targets=torch.full_like(examples.targets, is_forget, dtype=torch.bool))


@torch.no_grad()
def chosen_logits(first: nn.Module, second: nn.Module, inputs: Tensor, use_first: Tensor) -> Tensor:
    """(n, C) float32 logits: of `first` in the rows where (n,) `use_first` is true, of `second` in the others."""
    chosen, others = (mask.nonzero().squeeze(1) for mask in (use_first, ~use_first))
    if not len(chosen) or not len(others):  # a model need not take a batch without rows
        return (first if len(chosen) else second)(inputs).float()
    ones, rest = first(inputs[chosen]).float(), second(inputs[others]).float()
    logits = ones.new_empty(len(inputs), ones.shape[1])
    logits[chosen], logits[others] = ones, rest
    return logits
