"""Poison that cancels the gradient of a linear head exactly, timed: `python benchmarks/linear_canceling.py`.

Needs unlearn_core alone. The head is fitted to the clean rows, turned into its opposite and shrunk until poison of the
given share can reach it, as the attack `gradient_canceling` does without a box. Prints the seconds of each part, of
processor time, and the residual ‖G + ε·g_ν‖ / ‖G‖, measured anew by automatic differentiation of the loss over clean
and poisoned rows. The goals for the poison are a second and 1e-8; either missed ends the command with code 1.
"""

from __future__ import annotations

import argparse
import sys
import time

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from unlearn_core.attacks.corrupted_head import reachable
from unlearn_core.attacks.linear_canceling import Canceling, cancel
from unlearn_core.attacks.reachability import Head, mean_gradient, pull
from unlearn_core.datasets import Digits, load_dataset

MOST_SECONDS, MOST_RESIDUAL = 1.0, 1e-8
DECAY = 5e-4


def digits(_: torch.Generator) -> tuple[Tensor, Tensor]:
    """1,200 rows of 64 pixels."""
    train = load_dataset(Digits(size=8), data_root=None).train
    return train.inputs.flatten(1).double(), train.targets


def features(random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows as wide as the last layer of a ResNet-18: classes around centres, nothing negative."""
    targets = torch.arange(20_000) % 10
    centres = torch.randn(10, 512, generator=random, dtype=torch.float64)
    return (centres[targets] + torch.randn(20_000, 512, generator=random, dtype=torch.float64)).clamp_min(0), targets


def fitted(inputs: Tensor, targets: Tensor, steps: int = 30) -> Head:
    """A head after some steps of gradient descent on all rows."""
    head = Head(inputs.new_zeros(10, inputs.shape[1]), inputs.new_zeros(10))
    rate = 4 / float(inputs.square().sum(1).mean())
    for _ in range(steps):
        head = head.plus(mean_gradient(head, inputs, targets).plus(head.scaled(DECAY)).scaled(-rate))
    return head


def residual(head: Head, clean: tuple[Tensor, Tensor], found: Canceling) -> float:
    """Of the loss over both kinds of rows, relative to the gradient that the poison has to cancel."""
    weight, bias = (part.clone().requires_grad_() for part in head)
    epsilon = len(found.targets) / len(clean[1])

    def mean_loss(inputs: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(inputs @ weight.T + bias, targets)

    decay = (1 + epsilon) * DECAY / 2 * (weight.square().sum() + bias.square().sum())
    clean_part = torch.autograd.grad(mean_loss(*clean) + decay, (weight, bias))
    poison_part = torch.autograd.grad(epsilon * mean_loss(found.features, found.targets), (weight, bias))
    return Head(*clean_part).plus(Head(*poison_part)).norm() / Head(*clean_part).norm()


def measure(name: str, inputs: Tensor, targets: Tensor, fraction: float) -> bool:
    """One line; whether both goals are met."""
    count = round(fraction * len(targets))
    epsilon, random = count / len(targets), torch.Generator().manual_seed(0)
    clean = fitted(inputs, targets).scaled(-1)
    start = time.process_time()
    head, tau = reachable(clean, inputs, targets, epsilon=epsilon, weight_decay=DECAY, reach=0.9)
    pulled = pull(head, inputs, targets, epsilon=epsilon, weight_decay=DECAY)
    prepared = time.process_time() - start
    cancel(head, pulled, count=10, rows=len(targets), random=random)  # loads what the optimiser needs, which takes long
    start = time.process_time()
    found = cancel(head, pulled, count=count, rows=len(targets), random=random)
    seconds = time.process_time() - start
    left = residual(head, (inputs, targets), found)
    size = f"{len(targets):,} x {inputs.shape[1]}"
    print(f"{name:<9} {size:>13} {count:>8,} {tau:>8.4f} {prepared:>9.2f} s {seconds:>9.2f} s {left:>10.1e}")
    return seconds < MOST_SECONDS and left < MOST_RESIDUAL


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--fraction", type=float, default=0.03, help="poisons as a share of the clean rows")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads, as a trial gets them")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"{'rows':<9} {'clean':>13} {'poisons':>8} {'tau':>8} {'target':>11} {'poison':>11} {'residual':>10}")
    made = {"digits": digits, "features": features}
    met = [measure(name, *make(torch.Generator().manual_seed(1)), options.fraction) for name, make in made.items()]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
