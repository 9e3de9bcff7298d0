"""Squares of per-sample gradients at once against a loop over single rows: `python benchmarks/per_sample_gradients.py`.

Needs unlearn_core alone. Both sum (∂ℓ_n/∂θ_i)² over the same rows, in evaluation mode, and must agree. The loop is that
of published code: batches of one, a backward pass, its gradients copied, squared and added. Prints the milliseconds
per row of each and their ratio; beside them those of an ordinary gradient of the whole batch, which is the least that
any method can take: it makes the same products. Memory is the most that a process of its own held above its start.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearn_core.gradients.fisher import Sums, squared_gradient_sums
from unlearn_core.models import ResNet9, build_model
from unlearn_core.training import evaluating

MIB = 1024  # ru_maxrss is in KiB
Work = Callable[[nn.Module, Tensor, Tensor, int], Sums]


def one_by_one(model: nn.Module, inputs: Tensor, targets: Tensor, chunk: int) -> Sums:
    """Batches of one."""
    sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    with evaluating(model):
        for row in range(len(inputs)):
            model.zero_grad()
            functional.cross_entropy(model(inputs[row : row + 1]), targets[row : row + 1]).backward()
            for name, parameter in model.named_parameters():
                assert parameter.grad is not None
                sums[name] += parameter.grad.clone().pow(2)
    model.zero_grad()
    return sums


def at_once(model: nn.Module, inputs: Tensor, targets: Tensor, chunk: int) -> Sums:
    """Our own, `chunk` rows at a time."""
    totals: Sums = {}
    for x, y in zip(inputs.split(chunk), targets.split(chunk), strict=True):
        for name, value in squared_gradient_sums(model, x, y).items():
            totals[name] = totals[name] + value if name in totals else value
    return totals


def plain(model: nn.Module, inputs: Tensor, targets: Tensor, chunk: int) -> Sums:
    """The gradient of the sum, not squared."""
    with evaluating(model):
        for x, y in zip(inputs.split(chunk), targets.split(chunk), strict=True):
            torch.autograd.grad(functional.cross_entropy(model(x), y), list(model.parameters()))
    return {}


WORK: dict[str, Work] = {"batches of one": one_by_one, "at once": at_once, "plain gradient": plain}


def measure(name: str, options: argparse.Namespace) -> tuple[float, float, Sums]:
    """(least seconds per row of two runs, MiB above the start, the sums)."""
    torch.set_num_threads(options.threads)
    random = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(options.rows, 3, 32, 32, generator=random), torch.arange(options.rows) % 10
    model = build_model(ResNet9(width=options.width), input_shape=(3, 32, 32), classes=10, seed=0)
    WORK[name](model, inputs[:2], targets[:2], options.chunk)  # warms up
    before, seconds = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    for _ in range(2):
        start = time.perf_counter()
        sums = WORK[name](model, inputs, targets, options.chunk)
        seconds.append(time.perf_counter() - start)
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / MIB
    return min(seconds) / options.rows, memory, {name: value.numpy() for name, value in sums.items()}  # type: ignore[misc]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--width", type=int, default=64, help="of ResNet-9")
    parser.add_argument("--chunk", type=int, default=128, help="rows at once, as the methods take them")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    options = parser.parse_args()
    found = {}
    for name in WORK:
        with multiprocessing.get_context("spawn").Pool(1) as pool:  # peak memory never falls: a process for each
            found[name] = pool.apply(measure, (name, options))
        print(f"{name:<15} {1000 * found[name][0]:>8.2f} ms a row  {found[name][1]:>7,.0f} MiB")
    loop, ours = (found[name][2] for name in ("batches of one", "at once"))
    for name, expected in loop.items():
        error = np.linalg.norm(ours[name] - expected) / np.linalg.norm(expected)
        assert error < 1e-2, f"{name} differs by {error:.1e}"
    slow, fast, least = (found[name][0] for name in WORK)
    print(f"ratio {slow / fast:.1f}; a plain gradient of the batch: {slow / least:.1f}")


if __name__ == "__main__":
    main()
