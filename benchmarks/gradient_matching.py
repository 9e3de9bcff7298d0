"""Gradient matching by two passes against double backward, in one run: `python benchmarks/gradient_matching.py`.

Needs unlearn_core alone. Both give the gradient of the same objective with respect to the same random images, at a
model after a short training, and take turns so that other load meets both alike. Prints the median seconds of each
(of processor time; on a GPU, that pass), the ratio, how many signs agree (all that the attack uses), and the `bound`:
double backward over the plain gradient with respect to the parameters, which every exact method has to take.

In convolutions a double backward is worth 7 forward passes (1 forward, 2 backward, 4 back through both) and two passes
9 (3, then 6 for an input gradient with its tangent). So two passes do not save arithmetic, and with a plain gradient
worth 3, no exact method could be 4 times as fast as a double backward that runs as it should: that is the bound.
Two passes hold one chunk of rows at a time where a double backward holds all, which makes many poisons or a large
network possible.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unlearn_core.attacks.cross_gradients import Parameters, summed_gradient
from unlearn_core.attacks.gradient_matching_search import mismatch, unit
from unlearn_core.models import ConvNet, Mlp, ModelSettings, ResNet9, ResNet18, build_model

MODELS: dict[str, ModelSettings] = {"mlp": Mlp(), "convnet": ConvNet(), "resnet9": ResNet9(), "resnet18": ResNet18()}
SHAPE, CLASSES = (3, 32, 32), 10


def trained(name: str, inputs: Tensor, targets: Tensor) -> nn.Module:
    """A model after some steps on the rows: parameters and BatchNorm statistics are not the initial ones."""
    model = build_model(MODELS[name], input_shape=SHAPE, classes=CLASSES, seed=0).to(inputs.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(5):
        optimizer.zero_grad()
        cross_entropy(model(inputs), targets).backward()
        optimizer.step()
    return model.eval().to(memory_format=torch.channels_last)  # as scenarios have them


def double_backward(model: nn.Module, inputs: Tensor, targets: Tensor, wanted: Parameters) -> tuple[float, Tensor]:
    """The objective and its gradient by differentiating the gradient, all rows at once."""
    leaf = inputs.detach().requires_grad_()
    loss = cross_entropy(model(leaf), targets, reduction="sum")
    made = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    product = torch.stack([(m * w).sum() for m, w in zip(made, wanted.values(), strict=True)]).sum()
    length = torch.stack([m.square().sum() for m in made]).sum().sqrt()
    value = 1 - product / length
    return float(value.detach()), torch.autograd.grad(value, leaf)[0]


def seconds(work: Callable[[], object], device: torch.device) -> float:
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - start


def compare(name: str, rows: int, repeats: int, device: torch.device) -> str:
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(rows, *SHAPE, generator=random).to(device)
    targets = torch.randint(CLASSES, (rows,), generator=random).to(device)
    model = trained(name, inputs, targets)
    aim = torch.randn(1, *SHAPE, generator=random).to(device)
    wanted = unit(summed_gradient(model, aim, targets[:1]))
    work: list[Callable[[], tuple[float, Tensor]]] = [
        lambda: double_backward(model, inputs, targets, wanted),
        lambda: mismatch(model, inputs, targets, wanted),
    ]
    first, second = (run()[1].sign() for run in work)  # this also warms up
    timed: list[Callable[[], object]] = [*work, lambda: summed_gradient(model, inputs, targets)]
    turns = [[seconds(run, device) for run in timed] for _ in range(repeats)]
    slow, fast, plain = (statistics.median(times) for times in zip(*turns, strict=True))
    same = float((first == second).double().mean())
    return f"{name:<9} {slow:>15.3f} s {fast:>10.3f} s {slow / fast:>6.2f}x {slow / plain:>6.2f}x {same:>11.5f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["mlp", "convnet"], choices=list(MODELS))
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads, as a trial gets them")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{device.type}, float32, {options.rows} rows")
    print(f"{'model':<9} {'double backward':>17} {'two passes':>12} {'ratio':>7} {'bound':>7}  same signs")
    for name in options.models:
        print(compare(name, options.rows, options.repeats, device), flush=True)


if __name__ == "__main__":
    main()
