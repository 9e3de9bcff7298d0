"""Redirection of what is left of the poison into units that are dropped afterwards."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from unlearn_core import checks
from unlearn_core.registry import UNLEARNERS
from unlearn_core.seeding import derive
from unlearn_core.space import Choice, Float, Int, Range
from unlearn_core.training import batches, descend, evaluating, rows_of
from unlearn_core.types import Task, Update
from unlearn_core.unlearners.bn_refresh import batch_norms, gathering
from unlearn_core.unlearners.expansion import Expansion, draw_masks
from unlearn_core.unlearners.npo import cross_entropy_per_row, preference
from unlearn_core.unlearners.potion import predicted
from unlearn_core.unlearners.random_labels import joined
from unlearn_core.unlearners.settings import LoopSettings, cross_entropy, loop_space

REFRESH = 0.1  # weight of a batch in BatchNorm's running statistics, as in training


@UNLEARNERS.register("rem")
@dataclass(frozen=True, kw_only=True)
class REM(LoopSettings):
    """REM: NPO on the forget set, then fine-tuning with extra units that take up the poison and are dropped.

    With θ1 the model's weights and θ2 those of the extra units:
    1. θ2 is made; its output weights are zero, so the logits are the corrupted model's.
    2. NPO on the forget set through θ1 alone, until its accuracy on the forget set with the poison labels, looked at
       before each pass and charged, is below `gamma`, or for `npo_epochs` passes.
    3. `epochs` passes over all data, minimising CE(θ1 ∪ θ2; all data) + w NPO(θ1; forget set). Each row of the retain
       set uses its own random part of θ2, the same in every pass; all rows of the forget set use one and the same.
       What the forget set teaches, and with it what undiscovered poisons would, finds its place in θ2.
    4. θ2 is dropped.
    θ2 lives beside the model, so a run can be stopped anywhere and leaves θ1 in the original architecture. NPO's
    reference is the corrupted model. BatchNorm: `bn` = frozen runs everything in evaluation mode; train normalises the
    batches of CE by themselves, and takes the running statistics from further forward passes of their retain rows
    through θ1 alone (charged), since those of θ1 ∪ θ2 differ. NPO and accuracy are always in evaluation mode.

    Source: Schoepf, Mozer, Mitchell, Brintrup, Kaissis, Kairouz, Triantafillou, ICLR 2026, arXiv:2505.17730. The loss
    of step 3 is derived from the method's purpose: the paper's formula could not be checked. Deviations: θ2 is a side
    branch of each linear or convolution layer but the last (a layer of the same kind to `widen` times as many units,
    ReLU, the row's mask, a linear map to the layer's outputs), where the authors add channels to the layers; defaults
    are ours. Raises InputError for a model without a hidden layer.
    """

    needs: ClassVar[tuple[str, ...]] = ("forget", "forget_labels", "retain", "retain_labels")

    epochs: int = 5  # passes over all data in step 3
    bn: str = "frozen"
    npo_lr: float = 0.01  # step size in step 2
    npo_epochs: int = 10  # most passes over the forget set in step 2
    npo_batch_size: int = 64  # forget rows per update in step 2
    gamma: float = 0.1  # accuracy on the forget set that ends step 2
    beta: float = 0.1  # how soon NPO's push fades
    npo_weight: float = 1.0  # w
    widen: float = 0.1  # extra units, as a share of a layer's own
    density: float = 0.5  # share of the extra units that a row uses

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.not_negative(npo_lr=self.npo_lr, npo_weight=self.npo_weight)
        checks.in_range("npo_epochs", self.npo_epochs, 0, 10**6)
        checks.in_range("npo_batch_size", self.npo_batch_size, 1, 10**7)
        checks.in_range("gamma", self.gamma, 0, 1)
        checks.in_range("widen", self.widen, 1e-3, 10)
        checks.in_range("density", self.density, 0, 1)
        checks.positive(beta=self.beta)

    def updates(self, task: Task) -> Iterator[Update]:
        expansion = Expansion(task.model, task.retain.inputs, share=self.widen, seed=derive(task.rng.seed, "expansion"))
        reference = copy.deepcopy(task.model).eval().requires_grad_(False)
        yield from self._forget(task, reference)
        yield from self._redirect(task, reference, expansion)

    def _forget(self, task: Task, reference: nn.Module) -> Iterator[Update]:
        """Step 2."""
        optimizer = self.optimizer_for(task.model)
        for epoch in range(self.npo_epochs):
            yield Update("probe", len(task.forget))
            if predicted(task.model, task.forget) < self.gamma:
                return
            stream = batches(
                task.forget,
                self.npo_batch_size,
                task.rng,
                "npo",
                epochs=[epoch],
                augmentation=task.recipe.augmentation,
            )
            yield from descend(
                stream,
                lambda batch: self._npo(task.model, reference, *batch),
                optimizer,
                phase="npo",
                size=rows_of,
                lr=lambda _: self.npo_lr,
            )

    def _redirect(self, task: Task, reference: nn.Module, expansion: Expansion) -> Iterator[Update]:
        """Step 3."""
        everything, masks = joined(task.retain, task.forget), self._masks(task, expansion.units)
        retained = len(task.retain)
        share = len(task.forget) / len(everything)

        def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
            inputs, rows = batch
            targets, known = everything.targets[rows], rows >= retained
            value = self._widened_loss(task.model, expansion, masks[rows], (inputs, targets))
            if self.bn == "train":
                refresh(task.model, inputs[~known])
            if not known.any() or not self.npo_weight:
                return value
            # Divided by the rows expected in a batch, so that a pass adds up to the mean over the forget set.
            part = known.sum() / (share * len(rows))
            return value + self.npo_weight * part * self._npo(task.model, reference, inputs[known], targets[known])

        numbered = replace(everything, targets=torch.arange(len(everything), device=everything.targets.device))
        stream = batches(
            numbered,
            self.batch_size,
            task.rng,
            "redirect",
            epochs=range(self.epochs),
            augmentation=task.recipe.augmentation,
        )
        yield from descend(
            stream,
            loss,
            self.optimizer_for(nn.ModuleList([task.model, expansion])),
            phase="redirect",
            size=lambda batch: (len(batch[1]), int((batch[1] >= retained).sum())),
            lr=self.lr_at(len(everything)),
        )

    def _masks(self, task: Task, units: int) -> Tensor:
        """(n, units): one mask for each retain row, then the forget set's one for each of its rows."""
        own = draw_masks(len(task.retain), units, density=self.density, random=task.rng("masks"))
        shared = draw_masks(1, units, density=self.density, random=task.rng("forget mask"))
        return torch.cat([own, shared.expand(len(task.forget), -1)])

    def _widened_loss(
        self, model: nn.Module, expansion: Expansion, mask: Tensor, batch: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Cross-entropy of θ1 ∪ θ2; leaves running statistics alone."""
        mode = gathering(model, batch_norms(model), momentum=0.0) if self.bn == "train" else evaluating(model)
        with mode, expansion.active(mask):
            return cross_entropy(model, batch)

    def _npo(self, model: nn.Module, reference: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """NPO's loss of θ1 in evaluation mode."""
        with torch.no_grad():
            before = cross_entropy_per_row(reference(inputs), targets)
        with evaluating(model):
            now = cross_entropy_per_row(model(inputs), targets)
        return preference(before - now, self.beta)

    @classmethod
    def search_space(cls) -> dict[str, Range]:
        return loop_space(lr=Float(1e-4, 0.1, log=True), epochs=Int(1, 10)) | {
            "npo_lr": Float(1e-5, 0.1, log=True),
            "gamma": Float(0.05, 0.3),
            "beta": Float(0.01, 5.0, log=True),
            "widen": Choice((0.05, 0.1, 0.2)),
            "density": Choice((0.25, 0.5, 0.75)),
            "bn": Choice(("train", "frozen")),
        }


def refresh(model: nn.Module, inputs: Tensor) -> None:
    """Let `inputs` enter the running statistics; one row has no variance to speak of and is left out."""
    norms = batch_norms(model)
    if norms and len(inputs) > 1:
        with torch.no_grad(), gathering(model, norms, momentum=REFRESH):
            model(inputs)
