"""A small real problem: handwritten digits, some of them poisoned, half of those discovered."""

from dataclasses import dataclass
from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from tests.contracts.tiny import CPU
from unlearn_core.models import Mlp, build_model
from unlearn_core.scenarios.scenario import Split
from unlearn_core.seeding import Streams
from unlearn_core.training import Recipe, predict, train_updates
from unlearn_core.types import Examples

ROWS, POISONS = 1000, 80


@dataclass(frozen=True)
class Corrupted:
    """A model trained on poisons, what an unlearner is given, and what is looked at afterwards.

    poisons: all of them as trained on; true: their right labels; test: clean rows.
    """

    model: nn.Module
    split: Split
    poisons: Examples
    true: Tensor
    test: Examples

    def healed(self, net):
        """Share of all poisons that get their right label."""
        return accuracy(net, self.poisons.inputs, self.true)

    def utility(self, net):
        return accuracy(net, self.test.inputs, self.test.targets)


def accuracy(net, inputs, targets):
    return (predict(net, inputs).argmax(1) == targets).float().mean().item()


@cache
def corrupted(kind):
    """`patch`: a bright corner means class 0. `mislabelled`: a random wrong class."""
    digits = load_digits()
    random = torch.Generator().manual_seed(0)
    order = torch.randperm(len(digits.target), generator=random)
    inputs = torch.tensor(digits.images, dtype=torch.float32)[order, None]
    inputs, targets = (inputs - inputs.mean()) / inputs.std(), torch.tensor(digits.target)[order]
    test, true = Examples(inputs[ROWS:], targets[ROWS:], order[ROWS:]), targets[:POISONS].clone()
    train = Examples(inputs[:ROWS].clone(), targets[:ROWS].clone(), torch.arange(ROWS))
    if kind == "patch":
        train.inputs[:POISONS, :, :2, :2] = train.inputs.max()
        train.targets[:POISONS] = 0
    else:
        train.targets[:POISONS] = (true + torch.randint(1, 10, (POISONS,), generator=random)) % 10
    model = build_model(Mlp(hidden=(128,)), input_shape=(1, 8, 8), classes=10, seed=0)
    recipe = Recipe(epochs=30, batch_size=64, lr=0.1)
    for _ in train_updates(model, train, recipe, Streams(0, CPU)):
        pass
    poisons = train.rows(torch.arange(POISONS))
    known = torch.arange(ROWS) < POISONS // 2
    return Corrupted(model, Split(train.rows(~known), train.rows(known)), poisons, true, test)
