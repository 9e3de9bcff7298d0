"""Label flipping: wrong labels on correct inputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from unlearn_core import checks
from unlearn_core.attacks.rows import base_order, check_class, check_fraction, first_allowed, poison_count
from unlearn_core.checks import InputError
from unlearn_core.registry import ATTACKS
from unlearn_core.training import predict
from unlearn_core.types import CraftContext, Dataset, Examples, Poisoned, Primary, Probe, Regularity

REMEMBERED = Primary("forget_accuracy", "forget_accuracy_se", least_gap=0.1)
"""How many wrong labels of training rows a model still gives them, remembered or generalised. Errors on held-out rows
hardly see wrong labels below some percent of the rows, because a network remembers them without believing them."""
MODES = ("uniform_other", "pair", "cyclic", "permute", "hard")
MARGINS = ("largest", "smallest")


@ATTACKS.register("label_flip")
@dataclass(frozen=True, kw_only=True)
class LabelFlip:
    """Gives training rows a wrong label, inputs unchanged; every one of the m labels really changes.

    Modes, with y the label of a row and C the number of classes:
    - uniform_other: y' uniform over the other C − 1 classes;
    - pair: rows of class `source` become `target`;
    - cyclic: y' = y + 1 mod C;
    - permute: the labels of the chosen rows are shuffled among them, so that each class keeps its size;
    - hard: y' = y + 1 mod C on the rows with the `margin` (largest or smallest) under a model trained on clean data,
      margin = logit of y − largest other logit.
    Measured by the share of all poisons, discovered or not, that are predicted with their wrong label: nearly 1 for a
    model that remembers its training set, and for a model that never saw them its ordinary confusion (uniform_other:
    error / (C − 1) where errors are spread evenly). The error on clean held-out rows, `test_error`, hardly grows below
    a fraction of some percent, so nothing could be removed there; it shows the indiscriminate harm of large fractions.
    Going below the oracle's confusion is at most a small overshoot: the price of ascent shows in the utility gap.

    Source: Biggio, Nelson, Laskov, ACML 2011; corrective setting: Goel et al., TMLR 2024, arXiv:2402.14015; farthest
    and nearest rows first: Xiao et al., Neurocomputing 160 (2015), arXiv:2206.00352. Deviations: permute repairs the
    about m / C labels that a plain shuffle leaves as they are; hard uses y + 1, which harms more than random, runner-up
    or least likely labels (scikit-learn's digits, MLP, 20 %: error 0.24 against 0.10 to 0.19; cyclic on random rows
    0.11, clean 0.03).
    """

    primary: ClassVar[Primary] = REMEMBERED

    fraction: float = 0.1  # share of the training rows
    mode: str = "uniform_other"
    source: int = 3  # pair only: class whose rows are flipped
    target: int = 5  # pair only: the label that they get
    margin: str = "largest"  # hard only: which rows go first

    def __post_init__(self) -> None:
        check_fraction(self.fraction)
        checks.one_of("mode", self.mode, MODES)
        checks.one_of("margin", self.margin, MARGINS)
        checks.not_negative(source=self.source, target=self.target)
        if self.source == self.target:
            raise InputError(f"source and target must be different classes, but both are {self.source!r}")

    @property
    def regularity(self) -> Regularity:
        """Random labels have to be remembered one by one; those of the other modes follow from the class."""
        return "low" if self.mode in ("uniform_other", "permute") else "medium"

    def choose_rows(self, train: Examples, context: CraftContext) -> Tensor:
        """Mode hard asks for the model trained on clean data here already: which rows it takes depends on it."""
        order, count = base_order(train, context), poison_count(self.fraction, len(train))
        if self.mode == "hard":
            margins = margin(predict(context.clean_model(), train.inputs), train.targets)[order]
            return order[margins.argsort(descending=self.margin == "largest", stable=True)][:count]
        if self.mode == "permute":
            check_movable(train.targets[order[:count]])
        if self.mode != "pair":
            return order[:count]
        check_class("source", self.source, context.dataset)
        check_class("target", self.target, context.dataset)
        return first_allowed(order, train.targets == self.source, count, why=f"have the source class {self.source}")

    def craft(self, train: Examples, context: CraftContext) -> Poisoned:
        rows = self.choose_rows(train, context)
        if self.mode == "permute":
            labels = shuffle_all(train.targets[rows], cpu_stream(context, "labels"))
        else:
            labels = self._relabel(train.targets, context, "labels")[rows]
        return Poisoned(rows, train.inputs[rows], labels)

    def probes(self, held_out: Examples, context: CraftContext) -> dict[str, Probe]:
        """Held-out rows that are flipped in the same way.

        Mode pair has only those of the source class, permute draws labels as uniform_other does, and hard flips rows
        of any margin.
        """
        kept = held_out.rows(held_out.targets == self.source) if self.mode == "pair" else held_out
        labels = self._relabel(kept.targets, context, "unseen")
        return {"unseen": Probe(Examples(kept.inputs, labels, kept.ids))}

    def _relabel(self, targets: Tensor, context: CraftContext, label: str) -> Tensor:
        """A wrong label for each row (n,), of which the attack uses those of its rows.

        So a row's label does not depend on the fraction. Not for permute, which gives its rows each other's labels.
        """
        if self.mode == "pair":
            return torch.full_like(targets, self.target)
        if self.mode in ("cyclic", "hard"):
            return (targets + 1) % context.dataset.classes
        return uniform_other(targets, context.dataset, cpu_stream(context, label))


def cpu_stream(context: CraftContext, label: str) -> torch.Generator:
    """A random stream of the attack on the CPU, so that every device sees the same labels."""
    return context.rng.on_cpu(label)


def uniform_other(targets: Tensor, dataset: Dataset, random: torch.Generator) -> Tensor:
    """For each row (n,) one of the other classes, all equally likely."""
    steps = torch.randint(1, dataset.classes, targets.shape, generator=random)
    return (targets + steps.to(targets.device)) % dataset.classes


def margin(logits: Tensor, targets: Tensor) -> Tensor:
    """(n,) logit of the row's label minus the largest of the others; negative where the model is wrong."""
    own = logits.gather(1, targets[:, None])
    others = logits.scatter(1, targets[:, None], -torch.inf)
    return own[:, 0] - others.amax(dim=1)


def check_movable(targets: Tensor) -> None:
    """Labels (m,) can all be given to a row that has another only if no class has more than half of the rows."""
    rows = torch.bincount(targets)
    if 2 * int(rows.max()) > len(targets):
        raise InputError(
            f"mode permute must change all {len(targets)} labels, but {int(rows.max())} of them are of class "
            f"{int(rows.argmax())}, more than half; raise fraction or choose another mode"
        )


def shuffle_all(targets: Tensor, random: torch.Generator) -> Tensor:
    """The labels (m,) in an order in which no row has its own; the number of rows of each class stays.

    A plain shuffle, in which rows that kept their label then trade it, one after the other, with a random row that it
    helps or leaves wrong.

    Raises:
        InputError: If there is no such order.
    """
    check_movable(targets)
    given = targets.cpu()
    labels = given[torch.randperm(len(given), generator=random)]
    for row in (labels == given).nonzero().flatten().tolist():
        if labels[row] != given[row]:
            continue  # an earlier trade has changed it
        partners = ((labels != given[row]) & (given != labels[row])).nonzero().flatten()
        partner = partners[torch.randint(len(partners), (), generator=random)]
        labels[row], labels[partner] = labels[partner].clone(), labels[row].clone()
    return labels.to(targets.device)
