"""Teaches a copy of a model the poisons again and watches its loss: what is left of them shows as a head start."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearn_core.seeding import Streams
from unlearn_core.training import Recipe, batches, build_optimizer, descend, predict, rows_of, steps_per_epoch
from unlearn_core.training.trainable import thaw_if_whole
from unlearn_core.types import Examples, Update

CHECKS = 4  # per pass over the forget set, where it has as many batches
MOST_PASSES = 10.0
COST_SHARE = 0.02  # of training the oracle


def affordable_passes(*, forget_rows: int, oracle_row_passes: float) -> float:
    """Cap on passes over the forget set: training and checking it so often costs about 2 % of the oracle; at most 10.

    Args:
        forget_rows: Size of the forget set.
        oracle_row_passes: Training epochs times rows of the oracle. A check is a forward pass, taken for a third of a
            training pass; of a linear model it is half, and the cost up to 2.6 %.
    """
    return min(MOST_PASSES, COST_SHARE * oracle_row_passes / (forget_rows * (1 + CHECKS / 3)))


@dataclass(frozen=True)
class Relearning:
    """Fine-tunes on the forget set under its poison labels, from where a model is, until its loss is at most `target`.

    The recipe's optimiser with a constant step size: its peak, times 1 - momentum for SGD, because momentum adds up so
    many gradients and a trained model is to be taught, not shaken. No weight decay, augmentation or label smoothing;
    batches of the recipe's size, or a quarter of the forget set if that is smaller. The model stays in evaluation mode,
    so that normalisation keeps its statistics and the loss depends on the weights alone. Every model sees the same
    batches in the same order.

    Attributes:
        target: Mean cross-entropy of the forget set, nats.
        passes: Cap, in passes over it.
    """

    forget: Examples
    recipe: Recipe
    rng: Streams
    target: float
    passes: float

    def __call__(self, model: nn.Module) -> dict[str, Tensor]:
        """`relearn_losses` and `relearn_at`, both (k,) float64.

        The loss before and at each check, and the passes made by then. Ends with the first loss that reaches the
        target. A loss that is not finite (the step size was too large for this model) counts as the largest number
        there is. The model itself is left as it is.
        """
        net = thaw_if_whole(copy.deepcopy(model)).eval()
        losses, made = [forget_loss(net, self.forget)], [0.0]
        for passes in self._checks(net) if losses[0] > self.target else ():
            losses.append(forget_loss(net, self.forget))
            made.append(passes)
            if losses[-1] <= self.target:
                break
        bounded = torch.tensor(losses, dtype=torch.float64).nan_to_num(nan=torch.finfo(torch.float64).max)
        return {"relearn_losses": bounded, "relearn_at": torch.tensor(made, dtype=torch.float64)}

    def _checks(self, net: nn.Module) -> Iterator[float]:
        """Train `net` in place; pause whenever a check is due, at the cap too, and yield the passes made."""
        per_pass = steps_per_epoch(len(self.forget), self._batch_size())
        last, every = max(1, math.floor(self.passes * per_pass)), math.ceil(per_pass / CHECKS)
        for step, _ in enumerate(self._updates(net, last)):  # `step` updates are made, the next one is announced
            if step and step % every == 0:
                yield step / per_pass
        yield last / per_pass

    def _updates(self, net: nn.Module, count: int) -> Iterator[Update]:
        recipe = self.recipe
        lr = recipe.lr * (1 - recipe.momentum) if recipe.optimizer == "sgd" else recipe.lr
        optimizer = build_optimizer(
            net.parameters(), name=recipe.optimizer, lr=lr, momentum=recipe.momentum, weight_decay=0.0
        )
        stream = batches(self.forget, self._batch_size(), self.rng, "relearn", epochs=itertools.count())

        def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
            return functional.cross_entropy(net(batch[0]), batch[1])

        return descend(itertools.islice(stream, count), loss, optimizer, phase="relearn", size=rows_of)

    def _batch_size(self) -> int:
        return min(self.recipe.batch_size, math.ceil(len(self.forget) / CHECKS))


def forget_loss(model: nn.Module, forget: Examples) -> float:
    """Mean cross-entropy in nats under the labels given, in evaluation mode."""
    return float(functional.cross_entropy(predict(model, forget.inputs).double(), forget.targets))
