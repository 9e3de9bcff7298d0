"""Gradient Canceling: added rows whose gradients hold a retrained model at bad weights."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from unlearn_core import checks
from unlearn_core.attacks.canceling_search import Search, cancel_all, cancel_head
from unlearn_core.attacks.corrupted_head import gradpc, reachable, with_stationary_bias
from unlearn_core.attacks.corrupted_model import corrupt_parameters
from unlearn_core.attacks.linear_canceling import cancel
from unlearn_core.attacks.reachability import Head, pull, threshold
from unlearn_core.attacks.rows import base_order, check_bounded, check_fraction, check_numeric, poison_count
from unlearn_core.checks import InputError
from unlearn_core.registry import ATTACKS
from unlearn_core.structure.forward_trace import head_of
from unlearn_core.structure.frozen_features import without_head
from unlearn_core.training import predict
from unlearn_core.types import CraftContext, Examples, Poisoned, Primary, Probe, Regularity

TARGETS = ("negated", "gradpc")
SCOPES = ("head", "all")


class Aim(NamedTuple):
    """Weights that the victim is to return to.

    A model with them in scope `all`, everything before its last layer, that layer (in scope `head` bad and shrunk),
    the gradient to cancel there, and the threshold tau.
    """

    model: nn.Module
    extractor: nn.Module
    head: Head
    pulled: Head
    tau: float


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
    steps: int = 600  # updates of the gradient search
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
        return order[_turns(train.targets[order], context.dataset.classes)][:count]

    def craft(self, train: Examples, context: CraftContext) -> Poisoned:
        """Warns of weights that cannot be reached, where nothing shrinks them (`reach` None, or scope `all`)."""
        rows, random = self.choose_rows(train, context), _random(context)
        epsilon = len(rows) / len(train)
        aim, search = self._aim(train, context, epsilon, random), self._search(train, rows, context)
        if self.reach is None or self.scope == "all":
            self._warn(aim.tau, epsilon)
        if self.scope == "all":
            made = cancel_all(aim.model, train, self.weight_decay, search)
        elif not self.box and not list(aim.extractor.parameters()):
            made = cancel(aim.head, aim.pulled, count=len(rows), rows=len(train), random=random)
            shape, like = train.inputs.shape[1:], train.inputs
            made = made._replace(features=made.features.to(like).view(-1, *shape), targets=made.targets.to(like.device))
        else:
            made = cancel_head(aim.extractor, aim.head, aim.pulled, search)
        facts = made.features.new_tensor([aim.tau, epsilon, made.residual], dtype=torch.float64)
        return Poisoned(rows, made.features.detach(), made.targets, mode="append", evidence={"array.canceling": facts})

    def probes(self, held_out: Examples, context: CraftContext) -> dict[str, Probe]:
        """Held-out rows: there are no fresh poisons of this kind, each is made for one set of weights."""
        return {"unseen": Probe(held_out)}

    def _aim(self, train: Examples, context: CraftContext, epsilon: float, random: torch.Generator) -> Aim:
        """The bad weights, made from a model trained on clean data."""
        model = context.clean_model()
        if self.scope == "all":
            model = copy.deepcopy(model)
            model = corrupt_parameters(model, train, radius=self.radius, random=context.rng.on_cpu("gradpc"))
        extractor, linear = split_head(model, train.inputs)
        features, targets = predict(extractor, train.inputs).double().cpu(), train.targets.cpu()
        head = Head(linear.weight.detach().double().cpu(), linear.bias.detach().double().cpu())
        if self.scope != "all":
            head = self._reachable(self._bad_head(head, features, targets, random), features, targets, epsilon)
        pulled = pull(head, features, targets, epsilon=epsilon, weight_decay=self.weight_decay)
        return Aim(model, extractor, head, pulled, threshold(head, pulled))

    def _bad_head(self, head: Head, features: Tensor, targets: Tensor, random: torch.Generator) -> Head:
        if self.target == "negated":
            return head.scaled(-1)
        return gradpc(head, features, targets, radius=self.radius, random=random)

    def _reachable(self, head: Head, features: Tensor, targets: Tensor, epsilon: float) -> Head:
        """The bad head with the bias that suits it, and as small as `reach` asks for."""
        decay = self.weight_decay
        if self.reach is None:
            return with_stationary_bias(head.centred(), features, targets, decay=(1 + epsilon) * decay)
        return reachable(head, features, targets, epsilon=epsilon, weight_decay=decay, reach=self.reach)[0]

    def _warn(self, tau: float, epsilon: float) -> None:
        if tau > epsilon:
            why = f"the target weights need a poison share of at least tau = {tau:.3g}, but it is {epsilon:.3g}"
            warnings.warn(f"{why}: they cannot be reached; raise fraction or set reach", stacklevel=2)

    def _search(self, train: Examples, rows: Tensor, context: CraftContext) -> Search:
        targets = torch.arange(len(rows), device=train.targets.device) % context.dataset.classes
        share = len(rows) / len(train)
        return Search(train.inputs[rows], targets, share, self.steps, self.lr, context.dataset if self.box else None)


def split_head(model: nn.Module, inputs: Tensor) -> tuple[nn.Module, nn.Linear]:
    """(a copy of everything before the last linear layer, that layer).

    Args:
        model: The victim's model.
        inputs: Rows that the model can read; one of them is looked at.

    Raises:
        InputError: For a model that ends otherwise.
    """
    try:
        last = model.get_submodule(head_of(model, inputs[:1]))
    except InputError as problem:
        raise InputError(f"attack gradient_canceling needs a model that ends in a linear layer: {problem}") from None
    if not isinstance(last, nn.Linear) or last.bias is None:
        raise InputError("attack gradient_canceling needs a model that ends in a linear layer with a bias")
    return without_head(model, inputs), last


def _turns(targets: Tensor, classes: int) -> Tensor:
    """(n,) positions in an order in which the classes take turns as long as they last."""
    place = torch.zeros_like(targets)
    for label in range(classes):
        own = targets == label
        place[own] = torch.arange(int(own.sum()), device=targets.device)
    return place.argsort(stable=True)


def _random(context: CraftContext) -> torch.Generator:
    """The attack's stream on the CPU, from its beginning, so that every device sees the same poison."""
    return context.rng.on_cpu("canceling")
