"""Scores of many poisons in one pass against one by one: `python benchmarks/input_gradients.py`.

Needs unlearn_core alone. Both take the loss gradient with respect to each row of a model in evaluation mode and must
agree. One by one is a sample of the rows, each a forward and a backward pass of its own. Prints milliseconds per row
of processor time (which on one thread is the time on an idle machine; on a GPU the time that passes) and the ratio.

A pass over one row costs a GPU its launches, some hundred of them whatever they hold, which is why batches are so much
faster there. A CPU core is busy with one row already: in convolutions a batch saves it little.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from unlearn_core.gradients.input_gradients import input_gradients
from unlearn_core.models import Linear, Mlp, ModelSettings, ResNet9, ResNet18, build_model

MODELS: dict[str, ModelSettings] = {"linear": Linear(), "mlp": Mlp(), "resnet9": ResNet9(), "resnet18": ResNet18()}
SHAPE, CLASSES = (3, 32, 32), 10


def seconds(work: Callable[[], Tensor], device: torch.device) -> tuple[float, Tensor]:
    """The least of two runs, and what it gives."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    taken = []
    for _ in range(2):
        start = clock()
        result = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(clock() - start)
    return min(taken), result


def one_by_one(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return torch.cat([input_gradients(model, x, y) for x, y in zip(inputs.split(1), targets.split(1), strict=True)])


def compare(name: str, rows: int, sample: int, device: torch.device) -> str:
    random = torch.Generator().manual_seed(0)
    inputs = torch.randn(rows, *SHAPE, generator=random).to(device)
    targets = torch.randint(CLASSES, (rows,), generator=random).to(device)
    model = build_model(MODELS[name], input_shape=SHAPE, classes=CLASSES, seed=0).to(device)
    model = model.to(memory_format=torch.channels_last)  # as scenarios have them
    few, few_targets = inputs[:sample], targets[:sample]
    input_gradients(model, few, few_targets)  # warms up
    slow, single = seconds(lambda: one_by_one(model, few, few_targets), device)
    fast, batch = seconds(lambda: input_gradients(model, inputs, targets), device)
    error = float((single - batch[:sample]).norm() / single.norm())
    assert error < 1e-4, f"{name} differs by {error:.1e}"
    slow, fast = 1000 * slow / sample, 1000 * fast / rows
    return f"{name:<9} {slow:>10.3f} ms {fast:>10.3f} ms {slow / fast:>6.1f}x {error:>9.0e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--rows", type=int, default=750, help="1.5 %% of CIFAR-10")
    parser.add_argument("--sample", type=int, default=16, help="rows that are timed one by one")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads, as a trial gets them")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"{device.type}, float32, {options.rows} rows; milliseconds per row")
    print(f"{'model':<9} {'one by one':>13} {'one pass':>13} {'ratio':>7}  difference")
    for name in options.models:
        print(compare(name, options.rows, options.sample, device), flush=True)


if __name__ == "__main__":
    main()
