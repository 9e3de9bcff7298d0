"""Targeted clean-label poison: small changes whose gradient points where the attacker wants a target to go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from unlearn_core import checks
from unlearn_core.attacks.cross_gradients import summed_gradient
from unlearn_core.attacks.gradient_matching_search import Ball, Found, Search, brew, unit
from unlearn_core.attacks.rows import (
    base_order,
    check_class,
    check_fraction,
    check_numeric,
    first_allowed,
    poison_count,
)
from unlearn_core.checks import InputError
from unlearn_core.registry import ATTACKS
from unlearn_core.seeding import Streams, derive
from unlearn_core.types import CraftContext, Dataset, Examples, Poisoned, Primary, Probe, Regularity

THREATS = ("single_class", "third_party", "random_subset", "self_betrayal")
LEAST = {"pixel01": 0.0, "pixel255": 1.0, "normalized": 0.0}
MOST = {"pixel01": 1.0, "pixel255": 255.0, "normalized": 10.0}


class Classes(NamedTuple):
    """source: of the targets. intended: what they shall be taken for. base: of the poisons; None for any."""

    source: int
    intended: int
    base: int | None


@ATTACKS.register("gradient_matching")
@dataclass(frozen=True, kw_only=True)
class GradientMatching:
    """Targeted clean-label poison (gradient matching, Witches' Brew): a few chosen images change their class.

    The attacker changes training images by at most `eps` per pixel, labels unchanged, so that their mean gradient (over
    all parameters, at a model trained on clean data) is parallel to that of the targets under the intended class:
    minimise B = 1 - cosine. Signed Adam with falling steps, projected on the ball and then on valid pixels, gradients
    of random views; of all restarts the one with the least last B is kept. It knows architecture, data and recipe, not
    the victim's initialisation and order. B near 0 is not success yet: only a victim tells. Views must be those of the
    recipe's augmentation: none for `none`, the paper's `flip` and `shift` 4 for `flip_crop`. Softmax regression without
    augmentation (CIFAR-10, 40 of 4,000 rows) was hit in 9 of 10 draws without views, in 1 of 5 with them.

    Targets are rows of the validation part, drawn by the seed: no training row may equal one, and the test rows, on
    which results are reported, contain none, so test accuracy needs no exclusion. Validation accuracy, which only
    tuning sees, does contain them. All targets of a scenario go from one class to one other, by the mean of their
    gradients. The paper's 10 draws with fresh victims are 10 scenario seeds with `targets` 1: each seed draws classes,
    targets, poisons and victims anew. More `targets` are a harder attack, measured more finely; they share their
    poisons, so their hits are not independent. `unseen` are unchanged held-out rows of the poisons' class: poisons are
    made for one target, so there are no fresh ones.
    Evidence: `objectives` (restarts, steps + 1), B of all searches; `target_ids`; `array.matching`, the kept one's
    first and last B. Cost: 3 · restarts · steps · m passes of a row; 1 or 2 restarts of 100 steps do for small models.
    Source: Geiping et al., ICLR 2021, arXiv:2009.02276. Deviations: the gradient of all poisons is matched at once, not
    batch by batch; the last B is that of the final images, on views that it was not fitted to.
    """

    primary: ClassVar[Primary] = Primary("target_hits", "target_hits_se", least_gap=0.5)
    regularity: ClassVar[Regularity] = "medium"  # no pattern in the inputs, but one direction that all gradients share

    fraction: float = 0.01  # share of the training rows
    eps: float | None = None  # largest change of a value; together with `space`. None: 16 of 255 grey levels
    space: str | None = None  # unit of `eps`: pixel01 ([0, 1]), pixel255, or normalized (model inputs)
    threat: str = "single_class"  # poisons are rows of the intended class; third_party, self_betrayal, random_subset
    targets: int = 1  # images that shall change their class
    source: int | None = None  # their class; None: drawn by the seed
    intended: int | None = None  # the class that they shall get; None: drawn by the seed
    restarts: int = 8
    steps: int = 250  # of each search
    lr: float = 0.1  # its step size at the start, in model input units
    flip: bool = False  # views: mirrored with probability 1/2
    shift: float = 0.0  # views: moved by up to so many pixels along each axis

    def __post_init__(self) -> None:
        self._fill_in_eps()
        check_fraction(self.fraction)
        checks.one_of("threat", self.threat, THREATS)
        checks.in_range("targets", self.targets, 1, 10**4)
        checks.in_range("restarts", self.restarts, 1, 10**4)
        checks.in_range("steps", self.steps, 1, 10**6)
        checks.positive(lr=self.lr)
        checks.not_negative(shift=self.shift, source=self.source or 0, intended=self.intended or 0)
        if self.source is not None and self.source == self.intended:
            raise InputError(f"source and intended must be different classes, but both are {self.source!r}")

    def _fill_in_eps(self) -> None:
        """The default pair, so that records say what was used; one without the other could mean anything."""
        if self.eps is None and self.space is None:
            object.__setattr__(self, "eps", 16.0)
            object.__setattr__(self, "space", "pixel255")
        if self.space is None:
            raise InputError(f"eps {self.eps!r} is given without a space; set space to one of {', '.join(MOST)}")
        checks.one_of("space", self.space, tuple(MOST))
        if self.eps is None:
            raise InputError(f"space {self.space!r} is given without eps; set both or neither")
        low, high = LEAST[self.space], MOST[self.space]
        if not (low <= self.eps <= high and self.eps > 0):
            raise InputError(f"eps must lie in [{low:g}, {high:g}] and not be 0 in {self.space}, but got {self.eps!r}")

    def choose_rows(self, train: Examples, context: CraftContext) -> Tensor:
        self._check(train, context)
        base, order = self.classes(context).base, base_order(train, context)
        allowed = torch.ones_like(train.targets).bool() if base is None else train.targets == base
        why = f"can be poisons under threat {self.threat}" + ("" if base is None else f" (class {base})")
        return first_allowed(order, allowed, poison_count(self.fraction, len(train)), why=why)

    def craft(self, train: Examples, context: CraftContext) -> Poisoned:
        rows, aims, model = self.choose_rows(train, context), self.aims(context), context.clean_model()
        base, wanted = train.rows(rows), unit(summed_gradient(model, aims.inputs, aims.targets))
        ball, search = self._ball(base.inputs, context.dataset), Search(self.steps, self.lr, self.flip, self.shift)
        best: Found | None = None
        logged = []
        for restart in range(self.restarts):
            rng = Streams(derive(context.rng.seed, "brew", restart), context.rng.device)
            found = brew(model, ball, base.targets, wanted, search=search, rng=rng)
            logged.append(found.objectives)
            best = found if best is None or found.objectives[-1] < best.objectives[-1] else best
        assert best is not None  # there is at least one restart
        ends = torch.tensor([best.objectives[0], best.objectives[-1]], dtype=torch.float64)
        objectives = torch.tensor(logged, dtype=torch.float64)
        evidence = {"objectives": objectives, "target_ids": aims.ids, "array.matching": ends}
        return Poisoned(rows, best.inputs, base.targets, evidence=evidence)

    def probes(self, held_out: Examples, context: CraftContext) -> dict[str, Probe]:
        """`targeted`: the targets that the poison was made for, whatever rows are held out; true: their class."""
        classes, aims = self.classes(context), self.aims(context)
        own = held_out if classes.base is None else held_out.rows(held_out.targets == classes.base)
        return {"unseen": Probe(own), "targeted": Probe(aims, torch.full_like(aims.targets, classes.source))}

    def classes(self, context: CraftContext) -> Classes:
        """The classes of this scenario: as set, or drawn by the seed."""
        count = context.dataset.classes
        drawn = torch.randperm(count, generator=context.rng("classes"), device=context.rng.device).tolist()
        free = [label for label in drawn if label not in (self.source, self.intended)]
        source = free.pop(0) if self.source is None else self.source
        intended = free.pop(0) if self.intended is None else self.intended
        if self.threat == "third_party" and not free:
            raise InputError(f"threat third_party needs three classes, but {context.dataset.name} has {count}")
        bases = {"single_class": intended, "self_betrayal": source, "random_subset": None}
        return Classes(source, intended, free[0] if self.threat == "third_party" else bases[self.threat])

    def aims(self, context: CraftContext) -> Examples:
        """The targets, under the intended class."""
        classes, held_out = self.classes(context), context.dataset.validation
        order = torch.randperm(len(held_out), generator=context.rng("targets"), device=context.rng.device)
        candidates = order[held_out.targets[order] == classes.source]
        if len(candidates) < self.targets:
            found = f"only {len(candidates)} validation rows of class {classes.source}"
            raise InputError(f"targets asks for {self.targets} images, but there are {found}; lower it")
        chosen = held_out.rows(candidates[: self.targets])
        return Examples(chosen.inputs, torch.full_like(chosen.targets, classes.intended), chosen.ids)

    def _check(self, train: Examples, context: CraftContext) -> None:
        check_numeric("gradient_matching", train, context.dataset)
        for field, label in (("source", self.source), ("intended", self.intended)):
            check_class(field, label or 0, context.dataset)
        if train.inputs.dim() != 4 and (self.space != "normalized" or self.flip or self.shift):
            raise InputError(
                "attack gradient_matching finds no images here: set space to normalized, with eps in model input "
                "units, flip to false and shift to 0"
            )
        aims = self.aims(context)
        for number, image in zip(aims.ids.tolist(), aims.inputs, strict=True):
            if bool((train.inputs == image).flatten(1).all(1).any()):
                raise InputError(
                    f"target {number} of the validation rows is a training row, too; take another seed, or take the "
                    "copy out of the data"
                )

    def _ball(self, base: Tensor, dataset: Dataset) -> Ball:
        assert self.eps is not None  # filled in
        if self.space == "normalized":
            radius = base.new_tensor(self.eps)
        else:
            pixels = self.eps if self.space == "pixel01" else self.eps / 255
            radius = pixels / dataset.channel(dataset.std, base)
        return Ball(base, radius, dataset if base.dim() == 4 else None)
