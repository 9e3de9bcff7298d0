"""Gradient Canceling: added rows whose gradients hold a retrained model at bad weights."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from unlearn_core import checks
from unlearn_core.attacks.canceling_search import Search, cancel_all, cancel_head
from unlearn_core.attacks.corrupted_head import gradpc, reachable, with_stationary_bias
from unlearn_core.attacks.corrupted_model import corrupt_parameters
from unlearn_core.attacks.linear_canceling import Canceling, cancel
from unlearn_core.attacks.reachability import Head, pull, threshold
from unlearn_core.attacks.rows import base_order, check_bounded, check_fraction, check_numeric, poison_count
from unlearn_core.checks import InputError
from unlearn_core.registry import ATTACKS
from unlearn_core.seeding import Streams
from unlearn_core.training import predict
from unlearn_core.types import CraftContext, Examples, Poisoned, Primary, Probe, Regularity

TARGETS = ("negated", "gradpc")
SCOPES = ("head", "all")


@ATTACKS.register("gradient_canceling")
@dataclass(frozen=True, kw_only=True)
class GradientCanceling:
    """Indiscriminate poison (gradient canceling): added rows make bad weights a stationary point of training.

    From weights trained on clean data the attacker makes bad ones (`target`), shrinks them until the threshold tau of
    `unlearn_core.attacks.reachability` is at most `reach` times the poison share, and looks for rows whose mean
    gradient cancels that of the clean ones there. Scope `head` matches the last linear layer only, on fixed features:
    with a linear model and `box=False` that is exact (`linear_canceling`), else a gradient search over the rows, for
    which one ordinary backward pass suffices. Scope `all` matches every parameter (GradPC weights, not shrunk), by two
    passes without double backward. The victim's architecture, data and weight decay are known; labels go round robin.
    With the box (valid pixels) the residual stays large on most data, and the drop small: that is the finding, not an
    error. Evidence `array.canceling`: tau, poison share, ‖G + ε·g_ν‖ / ‖G‖.
    Source: Lu, Kamath, Yu, ICML 2023, arXiv:2303.03592. Deviations: rows start from random clean ones balanced over
    classes, not the first of the file; the bias of the target is refitted and the weight decay counted in the
    condition; scope `head` instead of the first layer; Adam instead of plain descent.
    """

    primary: ClassVar[Primary] = Primary("test_error", "test_error_se", least_gap=0.02)
    regularity: ClassVar[Regularity] = "high"

    fraction: float = 0.03  # added rows as a share of the clean ones
    target: str = "negated"  # the head of opposite sign, or gradpc: ascent on the loss
    radius: float = 2.0  # gradpc: how far the ascent goes, L2
    reach: float | None = 0.9  # largest tau as a share of the poison share; None leaves the target as it is
    scope: str = "head"
    box: bool = True  # only valid pixels
    steps: int = 600  # of the gradient search
    lr: float = 0.05  # its step size at the start, in model input units
    weight_decay: float = 5e-4  # the victim's

    def __post_init__(self) -> None:
        check_fraction(self.fraction)
        checks.one_of("target", self.target, TARGETS)
        checks.one_of("scope", self.scope, SCOPES)
        checks.positive(radius=self.radius, lr=self.lr)
        checks.in_range("steps", self.steps, 1, 10**6)
        checks.not_negative(weight_decay=self.weight_decay)
        if self.reach is not None:
            checks.in_range("reach", self.reach, 1e-6, 1)

    def choose_rows(self, train: Examples, context: CraftContext) -> Tensor:
        """Clean rows that the search starts from, classes in turn."""
        check_numeric("gradient_canceling", train, context.dataset)
        if self.box:
            check_bounded("box", train, context.dataset)
        order, count = base_order(train, context), poison_count(self.fraction, len(train))
        sequence = _turns(train.targets[order], context.dataset.classes)
        return order[sequence][:count]

    def craft(self, train: Examples, context: CraftContext) -> Poisoned:
        rows, model = self.choose_rows(train, context), context.clean_model()
        if self.scope == "all":
            inputs, targets, facts = self._cancel_all(model, train, rows, context)
        else:
            inputs, targets, facts = self._cancel_head(model, train, rows, context)
        return Poisoned(rows, inputs, targets, mode="append", evidence={"array.canceling": facts})

    def probes(self, held_out: Examples, context: CraftContext) -> dict[str, Probe]:
        """Held-out rows: there are no fresh poisons of this kind, each is made for one set of weights."""
        return {"unseen": Probe(held_out)}

    def _cancel_head(
        self, model: nn.Module, train: Examples, rows: Tensor, context: CraftContext
    ) -> tuple[Tensor, Tensor, Tensor]:
        extractor, linear = split_head(model)
        features, targets = predict(extractor, train.inputs).double().cpu(), train.targets.cpu()
        epsilon, random = len(rows) / len(train), Streams(context.rng.seed, torch.device("cpu"))("canceling")
        head = self._bad_head(linear, features, targets, random)
        head, tau = self._reach(head, features, targets, epsilon)
        pulled = pull(head, features, targets, epsilon=epsilon, weight_decay=self.weight_decay)
        if not self.box and not list(extractor.parameters()):
            made = cancel(head, pulled, count=len(rows), rows=len(train), random=random)
            shape, like = train.inputs.shape[1:], train.inputs
            made = made._replace(features=made.features.to(like).view(-1, *shape), targets=made.targets.to(like.device))
        else:
            made = cancel_head(extractor, head, pulled, self._search(train, rows, context))
        return _result(made, tau, epsilon)

    def _cancel_all(
        self, model: nn.Module, train: Examples, rows: Tensor, context: CraftContext
    ) -> tuple[Tensor, Tensor, Tensor]:
        epsilon = len(rows) / len(train)
        bad = corrupt_parameters(copy.deepcopy(model), train, radius=self.radius, random=context.rng("gradpc"))
        made = cancel_all(bad, train, self.weight_decay, self._search(train, rows, context))
        extractor, linear = split_head(bad)
        features = predict(extractor, train.inputs).double().cpu()
        head = Head(linear.weight.detach().double().cpu(), linear.bias.detach().double().cpu())
        pulled = pull(head, features, train.targets.cpu(), epsilon=epsilon, weight_decay=self.weight_decay)
        tau = threshold(head, pulled)
        self._warn(tau, epsilon)
        return _result(made, tau, epsilon)

    def _bad_head(self, linear: nn.Linear, features: Tensor, targets: Tensor, random: torch.Generator) -> Head:
        head = Head(linear.weight.detach().double().cpu(), linear.bias.detach().double().cpu())
        if self.target == "negated":
            return head.scaled(-1)
        return gradpc(head, features, targets, radius=self.radius, random=random)

    def _reach(self, head: Head, features: Tensor, targets: Tensor, epsilon: float) -> tuple[Head, float]:
        decay = self.weight_decay
        if self.reach is not None:
            return reachable(head, features, targets, epsilon=epsilon, weight_decay=decay, reach=self.reach)
        head = with_stationary_bias(head.centred(), features, targets, decay=(1 + epsilon) * decay)
        tau = threshold(head, pull(head, features, targets, epsilon=epsilon, weight_decay=decay))
        self._warn(tau, epsilon)
        return head, tau

    def _warn(self, tau: float, epsilon: float) -> None:
        if tau > epsilon:
            why = f"the target weights need a poison share of at least tau = {tau:.3g}, but it is {epsilon:.3g}"
            warnings.warn(f"{why}: they cannot be reached; raise fraction or set reach", stacklevel=2)

    def _search(self, train: Examples, rows: Tensor, context: CraftContext) -> Search:
        targets = torch.arange(len(rows), device=train.targets.device) % context.dataset.classes
        share = len(rows) / len(train)
        return Search(train.inputs[rows], targets, share, self.steps, self.lr, context.dataset if self.box else None)


def split_head(model: nn.Module) -> tuple[nn.Sequential, nn.Linear]:
    """(everything before the last linear layer, that layer). Raises InputError for a model that ends otherwise."""
    *blocks, head = model.children()
    inside = list(head.children()) if isinstance(head, nn.Sequential) else [head]
    if not isinstance(inside[-1], nn.Linear) or inside[-1].bias is None:
        raise InputError("attack gradient_canceling needs a model that ends in a linear layer with a bias")
    return nn.Sequential(*blocks, *inside[:-1]), inside[-1]


def _turns(targets: Tensor, classes: int) -> Tensor:
    """(n,) positions in an order in which the classes take turns as long as they last."""
    place = torch.zeros_like(targets)
    for label in range(classes):
        own = targets == label
        place[own] = torch.arange(int(own.sum()), device=targets.device)
    return place.argsort(stable=True)


def _result(made: Canceling, tau: float, epsilon: float) -> tuple[Tensor, Tensor, Tensor]:
    facts = made.features.new_tensor([tau, epsilon, made.residual], dtype=torch.float64)
    return made.features.detach(), made.targets, facts
