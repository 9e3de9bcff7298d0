"""Speed of the training loop against a plain matrix product, in one run: `python benchmarks/training_speed.py`.

Needs unlearn_core alone. Prints, per model, images per second and the loop's FLOP/s as a share of what a large matrix
product reaches on the same device, in the same precision, with the same number of threads.
"""

from __future__ import annotations

import argparse
import time

import torch

from unlearn_core.models import ConvNet, Mlp, ModelSettings, ResNet9, ResNet18, build_model
from unlearn_core.seeding import Streams
from unlearn_core.training import Recipe, train_updates
from unlearn_core.training.budget import Meter
from unlearn_core.types import Examples

MODELS: dict[str, tuple[ModelSettings, tuple[int, int, int]]] = {
    "mlp": (Mlp(), (1, 32, 32)),
    "convnet": (ConvNet(), (3, 32, 32)),
    "resnet9": (ResNet9(), (3, 32, 32)),
    "resnet18": (ResNet18(), (3, 32, 32)),
}


def matmul_speed(device: torch.device, dtype: torch.dtype, size: int, seconds: float) -> float:
    """FLOP/s of a square matrix product."""
    a = torch.randn(size, size, device=device, dtype=dtype)
    clock = Meter(device).clock
    a @ a
    done, start = 0, clock()
    while time.perf_counter() - start < seconds:
        a @ a
        done += 1
    return 2 * size**3 * done / (clock() - start)


def loop_speed(name: str, device: torch.device, batch_size: int, seconds: float) -> tuple[float, float]:
    """(images per second, FLOP/s) of training on random images."""
    settings, shape = MODELS[name]
    rows = max(1024, 4 * batch_size)
    random = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(rows, *shape, generator=random), torch.randint(10, (rows,), generator=random)
    examples = Examples(inputs, targets, torch.arange(rows)).to(device)
    model = build_model(settings, input_shape=shape, classes=10, seed=0).to(device)
    meter = Meter(device, bf16=True)
    recipe = Recipe(batch_size=batch_size, lr=1e-3, schedule="constant")
    updates = train_updates(model, examples, recipe, Streams(0, device), progress=lambda: 0.5)
    announced = next(updates)
    for _ in range(3):  # counting and warming up
        announced = meter.advance(updates, announced)
    flops, steps, start = meter.flops, meter.steps, meter.clock()
    while time.perf_counter() - start < seconds:
        announced = meter.advance(updates, announced)
    elapsed = meter.clock() - start
    return (meter.steps - steps) * batch_size / elapsed, (meter.flops - flops) / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["mlp", "convnet"], choices=list(MODELS))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads, as a trial gets them")
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    peak = matmul_speed(device, dtype, 8192 if device.type == "cuda" else 1024, options.seconds)
    print(f"{device.type}, {dtype}, {options.threads} thread(s): matrix product {peak / 1e9:,.0f} GFLOP/s")
    for name in options.models:
        images, speed = loop_speed(name, device, options.batch_size, options.seconds)
        print(f"{name:<9} {images:>9,.0f} images/s  {speed / 1e9:>8,.1f} GFLOP/s  {speed / peak:.0%} of the product")


if __name__ == "__main__":
    main()
