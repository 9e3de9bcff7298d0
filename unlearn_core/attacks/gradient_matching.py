"""Targeted clean-label poison: small changes whose gradient points where the attacker wants a target to go."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

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
from unlearn_core.types import Attack, CraftContext, Dataset, Examples, Poisoned, Primary, Probe, Regularity

THREATS = ("single_class", "third_party", "random_subset", "self_betrayal")
LEAST = {"pixel01": 0.0, "pixel255": 1.0, "normalized": 0.0}
MOST = {"pixel01": 1.0, "pixel255": 255.0, "normalized": 10.0}


class Classes(NamedTuple):
    """Classes of a draw.

    Attributes:
        source: Class of the targets.
        intended: The class that they are to be taken for.
        base: Class of the poisons; None for any.
    """

    source: int
    intended: int
    base: int | None


class Goal(NamedTuple):
    """What one draw is after.

    Attributes:
        targets: Images with the class that they are to get as their label.
    """

    classes: Classes
    targets: Examples


@ATTACKS.register("gradient_matching")
@dataclass(frozen=True, kw_only=True)
class GradientMatching:
    """Targeted clean-label poison (gradient matching, Witches' Brew): a few chosen images change their class.

    The attacker changes training images by at most `eps` per pixel, labels unchanged, so that their mean gradient (over
    all parameters, at a model trained on clean data) is parallel to that of the targets under the intended class:
    minimise B = 1 - cosine. Signed Adam with falling steps, projected on the ball and then on valid pixels, gradients
    of random views; of all restarts the one with the least last B is kept. It knows architecture, data and recipe, not
    the victim's initialisation and order. B near 0 is not success yet: only a victim shows it. Views must be those of
    the recipe's augmentation: none for `none`, the paper's `flip` and `shift` 4 for `flip_crop`. Softmax regression
    without augmentation (CIFAR-10, 40 of 4,000 rows) was hit in 9 of 10 draws without views, in 1 of 5 with them.

    Targets are rows of the validation part, drawn by the seed: no training row may equal one, and the test rows, on
    which results are reported, contain none, so test accuracy needs no exclusion. Validation accuracy, which only
    tuning sees, does contain them. Each of the `draws` has its own classes, targets and poisons, crafted at the same
    model: many draws measure the hit rate of one victim finely, at the cost of fewer poisons for each. The paper's 10
    draws with fresh victims are `draws` times scenario seeds: a seed draws everything, victims included, anew. The
    `targets` of a draw share classes and poisons, by the mean of their gradients: a harder attack, whose hits are not
    independent. `unseen` are unchanged held-out rows of the poisons' classes: poisons are made for one target, so there
    are no fresh ones.
    Evidence: `objectives` (draws · restarts, steps + 1), B of all searches; `target_ids`; `array.matching`, first and
    last B of the kept ones, mean over draws. Cost: 3 · restarts · steps · m passes of a row, whatever the draws; 1 or 2
    restarts of 100 steps do for small models.

    Source: Geiping et al., ICLR 2021, arXiv:2009.02276. Deviations: the gradient of all poisons is matched at once, not
    batch by batch; the last B is that of the final images, on views that it was not fitted to.
    """

    primary: ClassVar[Primary] = Primary("target_hits", "target_hits_se", least_gap=0.5)
    regularity: ClassVar[Regularity] = "medium"  # no pattern in the inputs, but one direction that all gradients share

    fraction: float = 0.01  # share of the training rows
    eps: float | None = None  # largest change of a value; together with `space`. None: 16 of 255 grey levels
    space: str | None = None  # unit of `eps`: pixel01 ([0, 1]), pixel255, or normalized (model inputs)
    threat: str = "single_class"  # poisons are rows of the intended class; third_party, self_betrayal, random_subset
    draws: int = 1  # independent pairs of classes with targets; they share the poisons evenly
    targets: int = 1  # images of each draw that are to change their class
    source: int | None = None  # their class; None: drawn by the seed
    intended: int | None = None  # the class that they are to get; None: drawn by the seed
    restarts: int = 8
    steps: int = 250  # updates of each search
    lr: float = 0.1  # its step size at the start, in model input units
    flip: bool = False  # views: mirrored with probability 1/2
    shift: float = 0.0  # views: moved by up to so many pixels along each axis

    def __post_init__(self) -> None:
        self._fill_in_eps()
        check_fraction(self.fraction)
        checks.one_of("threat", self.threat, THREATS)
        checks.in_range("draws", self.draws, 1, 10**4)
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
        return torch.cat(self._plan(train, context)[1])

    def craft(self, train: Examples, context: CraftContext) -> Poisoned:
        goals, chosen = self._plan(train, context)
        model = context.clean_model()
        kept, logged = [], []
        for draw, (goal, rows) in enumerate(zip(goals, chosen, strict=True)):
            searches = self._searches(model, train.rows(rows), goal, draw, context)
            kept.append(min(searches, key=lambda found: found.objectives[-1]))
            logged += [found.objectives for found in searches]
        ends = torch.tensor([[found.objectives[0], found.objectives[-1]] for found in kept], dtype=torch.float64)
        evidence = {
            "objectives": torch.tensor(logged, dtype=torch.float64),
            "target_ids": torch.cat([goal.targets.ids for goal in goals]),
            "array.matching": ends.mean(0),
        }
        rows, inputs = torch.cat(chosen), torch.cat([found.inputs for found in kept])
        return Poisoned(rows, inputs, train.targets[rows], evidence=evidence)

    def probes(self, held_out: Examples, context: CraftContext) -> dict[str, Probe]:
        """`targeted`: the targets that the poison was made for, whatever rows are held out; true: their class."""
        goals = self.goals(context)
        parts, bases = [goal.targets for goal in goals], {goal.classes.base for goal in goals}
        aims = Examples(*(torch.cat([getattr(part, name) for part in parts]) for name in ("inputs", "targets", "ids")))
        true = aims.targets.new_tensor([goal.classes.source for goal in goals]).repeat_interleave(self.targets)
        own = held_out if None in bases else held_out.rows(torch.isin(held_out.targets, true.new_tensor(sorted(bases))))
        return {"unseen": Probe(own), "targeted": Probe(aims, true)}

    def _plan(self, train: Examples, context: CraftContext) -> tuple[list[Goal], list[Tensor]]:
        """Goals and positions of the poisons, draw by draw; everything that the data cannot give is refused."""
        self._check(train, context)
        goals = self.goals(context)
        for goal in goals:
            _check_unseen(goal.targets, train)
        return goals, self._rows(train, goals, context)

    def goals(self, context: CraftContext) -> list[Goal]:
        """What is wanted, draw by draw; no image is the target of two."""
        held_out, goals = context.dataset.validation, []
        free = torch.ones_like(held_out.targets).bool()
        for draw in range(self.draws):
            classes = self.classes(context, draw)
            order = context.rng.permutation(len(held_out), "targets", *_tail(draw)).to(free.device)
            rows = order[(free & (held_out.targets == classes.source))[order]][: self.targets]
            if len(rows) < self.targets:
                found = f"only {len(rows)} validation rows of class {classes.source}"
                left = " left" if draw else ""
                raise InputError(f"targets asks for {self.targets} images, but there are {found}{left}; lower it")
            free[rows] = False
            chosen = held_out.rows(rows)
            wanted = torch.full_like(chosen.targets, classes.intended)
            goals.append(Goal(classes, Examples(chosen.inputs, wanted, chosen.ids)))
        return goals

    def classes(self, context: CraftContext, draw: int = 0) -> Classes:
        """The classes of a draw: as set, or drawn by the seed."""
        count, random = context.dataset.classes, context.rng.on_cpu("classes", *_tail(draw))
        drawn = torch.randperm(count, generator=random).tolist()
        free = [label for label in drawn if label not in (self.source, self.intended)]
        source = free.pop(0) if self.source is None else self.source
        intended = free.pop(0) if self.intended is None else self.intended
        if self.threat == "third_party" and not free:
            raise InputError(f"threat third_party needs three classes, but {context.dataset.name} has {count}")
        bases = {"single_class": intended, "self_betrayal": source, "random_subset": None}
        return Classes(source, intended, free[0] if self.threat == "third_party" else bases[self.threat])

    def _rows(self, train: Examples, goals: list[Goal], context: CraftContext) -> list[Tensor]:
        """Positions of the poisons, draw by draw, disjoint."""
        total, order = poison_count(self.fraction, len(train)), base_order(train, context)
        if total < self.draws:
            raise InputError(f"fraction gives {total} poisons for {self.draws} draws; raise it, or lower draws")
        free, parts = torch.ones_like(train.targets).bool(), []
        for draw, goal in enumerate(goals):
            base = goal.classes.base
            allowed = free if base is None else free & (train.targets == base)
            why = f"can be poisons under threat {self.threat}" + ("" if base is None else f" (class {base})")
            count = total // self.draws + (draw < total % self.draws)
            parts.append(first_allowed(order, allowed, count, why=why))
            free[parts[-1]] = False
        return parts

    def _searches(self, model: nn.Module, base: Examples, goal: Goal, draw: int, context: CraftContext) -> list[Found]:
        """All restarts of a draw."""
        wanted = unit(summed_gradient(model, goal.targets.inputs, goal.targets.targets))
        ball, search = self._ball(base.inputs, context.dataset), Search(self.steps, self.lr, self.flip, self.shift)
        seeds = [derive(context.rng.seed, "brew", restart, *_tail(draw)) for restart in range(self.restarts)]
        streams = [Streams(seed, torch.device("cpu")) for seed in seeds]
        return [brew(model, ball, base.targets, wanted, search=search, rng=rng) for rng in streams]

    def _check(self, train: Examples, context: CraftContext) -> None:
        check_numeric("gradient_matching", train, context.dataset)
        for field, label in (("source", self.source), ("intended", self.intended)):
            check_class(field, label or 0, context.dataset)
        if train.inputs.dim() != 4 and (self.space != "normalized" or self.flip or self.shift):
            raise InputError(
                "attack gradient_matching finds no images here: set space to normalized, with eps in model input "
                "units, flip to false and shift to 0"
            )

    def _ball(self, base: Tensor, dataset: Dataset) -> Ball:
        assert self.eps is not None  # filled in
        if self.space == "normalized":
            radius = base.new_tensor(self.eps)
        else:
            pixels = self.eps if self.space == "pixel01" else self.eps / 255
            radius = pixels / dataset.channel(dataset.std, base)
        return Ball(base, radius, dataset if base.dim() == 4 else None)


def warn_of_views(attack: Attack, augmentation: str) -> None:
    """Warns where poisons of `attack`, or of its parts, are made for other views than victims are trained on."""
    wanted = "flip" in augmentation, "crop" in augmentation
    for part in getattr(attack, "parts", (attack,)):
        if isinstance(part, GradientMatching) and (part.flip, part.shift > 0) != wanted:
            fix = f"set flip to {str(wanted[0]).lower()} and shift to {4 * wanted[1]}"
            why = f"gradient_matching's views are not those of augmentation {augmentation!r}: it hits less often"
            warnings.warn(f"{why}; {fix}", stacklevel=2)


def _check_unseen(targets: Examples, train: Examples) -> None:
    """No target may be among the rows that victims are trained on."""
    for number, image in zip(targets.ids.tolist(), targets.inputs, strict=True):
        if bool((train.inputs == image).flatten(1).all(1).any()):
            raise InputError(
                f"target {number} of the validation rows is a training row, too; take another seed, or take the copy "
                "out of the data"
            )


def _tail(draw: int) -> tuple[int, ...]:
    """Label of the random streams of this draw, so that more draws keep the first."""
    return (draw,) if draw else ()
