"""The one training loop: everything that changes a model by gradient steps runs through `descend`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from unlearn_core.checks import InputError
from unlearn_core.seeding import Streams
from unlearn_core.training.augment import augment
from unlearn_core.training.footprint import rows_that_fit
from unlearn_core.training.recipe import Recipe
from unlearn_core.training.trainable import set_training
from unlearn_core.types import Examples, Update

Batch = TypeVar("Batch")


def build_optimizer(
    parameters: Iterable[nn.Parameter],
    *,
    name: str,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool = False,
) -> torch.optim.Optimizer:
    """SGD or AdamW over the parameters that require gradients; fused, which halves the time of a step on a CPU.

    Raises:
        InputError: If all are frozen.
    """
    trainable = [p for p in parameters if p.requires_grad]
    if not trainable:
        raise InputError("every parameter is frozen; set requires_grad of those that may be trained")
    if name == "adamw":
        return torch.optim.AdamW(trainable, lr=lr, betas=(momentum, 0.999), weight_decay=weight_decay, fused=True)
    use_nesterov = nesterov and momentum > 0
    return torch.optim.SGD(
        trainable, lr=lr, momentum=momentum, weight_decay=weight_decay, nesterov=use_nesterov, fused=True
    )


def schedule_factor(name: str, progress: float, *, warmup: float = 0.0, milestones: Sequence[float] = ()) -> float:
    """Share of the peak step size at `progress` in [0, 1]."""
    if progress < warmup:
        return max(1e-3, progress / warmup)  # never exactly zero: the first update must move
    rest = min(1.0, (progress - warmup) / (1 - warmup))
    if name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * rest))
    if name == "linear":
        return 1 - rest
    if name == "steps":
        return float(0.1 ** sum(progress >= m for m in milestones))
    return 1.0


def split_rows(order: Tensor, batch_size: int) -> list[Tensor]:
    """Cut `order` into batches; a remainder of one row joins the batch before it: BatchNorm cannot train on one row."""
    parts = list(order.split(batch_size))
    if len(parts) > 1 and len(parts[-1]) == 1 < batch_size:
        parts[-2:] = [torch.cat(parts[-2:])]
    return parts


def batches(
    examples: Examples,
    batch_size: int,
    rng: Streams,
    label: str,
    *,
    epochs: Iterable[int],
    augmentation: str = "none",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches (inputs, targets) of the epochs with these numbers; `itertools.count()` never ends.

    Each epoch's order and augmentation is a function of (rng.seed, label, epoch) alone. An empty set gives nothing.

    Yields:
        (inputs, targets), the last batch of an epoch with what is left of the rows.
    """
    for epoch in epochs if len(examples) else ():
        random = rng(label, epoch)
        order = torch.randperm(len(examples), generator=random, device=examples.targets.device)
        for rows in split_rows(order, batch_size):
            yield augment(examples.inputs[rows], augmentation, random), examples.targets[rows]


def steps_per_epoch(rows: int, batch_size: int) -> int:
    """Number of batches that `batches` makes of one epoch."""
    whole, rest = divmod(rows, batch_size)
    return whole + (rest > 1 or (rest == 1 and whole == 0))


def descend(
    batches: Iterable[Batch],
    loss: Callable[[Batch], Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    phase: str,
    size: Callable[[Batch], int | tuple[int, ...]],
    lr: Callable[[int], float] | None = None,
) -> Iterator[Update]:
    """One optimiser step per batch on `loss(batch)`; each is announced before it is made.

    Args:
        batches: What `loss` reads, one for each step.
        loss: A scalar to go down on.
        optimizer: Makes the steps.
        phase: Name of the updates, by which they are priced.
        size: Rows of a batch, by which they are priced.
        lr: Step size as a function of the number of steps made by this call; None leaves the optimiser's own.

    Yields:
        The update that comes next.
    """
    for step, batch in enumerate(batches):
        yield Update(phase, size(batch))
        if lr is not None:
            for group in optimizer.param_groups:
                group["lr"] = lr(step)
        optimizer.zero_grad(set_to_none=True)
        loss(batch).backward()
        optimizer.step()


def rows_of(batch: tuple[Tensor, Tensor]) -> int:
    """Size of a plain (inputs, targets) batch."""
    return len(batch[1])


def train_updates(
    model: nn.Module, examples: Examples, recipe: Recipe, rng: Streams, *, progress: Callable[[], float] | None = None
) -> Iterator[Update]:
    """Train `model` in place by `recipe`: for its epochs, or, when `progress` is given, until stopped from outside.

    Args:
        model: Changed in place.
        examples: The training rows.
        recipe: How to train.
        rng: Streams for order and augmentation.
        progress: Share of the run that is done, in [0, 1]; drives the schedule in place of the epoch count.
    """
    optimizer = build_optimizer(
        model.parameters(),
        name=recipe.optimizer,
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )
    total = recipe.epochs * steps_per_epoch(len(examples), recipe.batch_size)

    def lr(step: int) -> float:
        done = step / total if progress is None else progress()
        return recipe.lr * schedule_factor(recipe.schedule, done, warmup=recipe.warmup, milestones=recipe.milestones)

    def loss(batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        return functional.cross_entropy(model(inputs), targets, label_smoothing=recipe.label_smoothing)

    set_training(model)
    epochs = range(recipe.epochs) if progress is None else itertools.count()
    stream = batches(examples, recipe.batch_size, rng, "train", epochs=epochs, augmentation=recipe.augmentation)
    return descend(stream, loss, optimizer, phase="train", size=rows_of, lr=lr)


@torch.no_grad()
def predict(model: nn.Module, inputs: Tensor, *, chunk: int = 1024) -> Tensor:
    """Logits (n, C) float32, in evaluation mode whatever mode the model was left in.

    Args:
        model: Any classifier.
        inputs: (n, *shape).
        chunk: Rows of one pass, fewer where memory would be short. On CUDA products of matrices are rounded to TF32.
    """
    with evaluating(model), tf32_products(inputs.device):
        rows = rows_that_fit(model, inputs, chunk)
        return torch.cat([model(part).float() for part in inputs.split(rows)])


@contextmanager
def tf32_products(device: torch.device) -> Iterator[None]:
    """Float32 products of matrices on CUDA in TF32, as cuDNN's convolutions are anyway.

    10 bits of the mantissa, where training in bfloat16 keeps 7, and about 7 times as fast as full float32. Nothing
    else is changed.
    """
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.set_float32_matmul_precision(before)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Every module in evaluation mode, each put back to its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield model.eval()
    finally:
        for module, mode in modes:
            module.training = mode
