"""What training from scratch would cost, without doing it."""

from __future__ import annotations

import copy
from collections import Counter

import torch
from torch import nn

from unlearn_core.checks import InputError
from unlearn_core.seeding import Streams, global_seed
from unlearn_core.training import Recipe, split_rows, train_updates
from unlearn_core.training.budget import Meter, run_to_end
from unlearn_core.training.trainable import thaw_if_whole
from unlearn_core.types import Examples


def flops_of_training(model: nn.Module, rows: Examples, recipe: Recipe) -> int:
    """FLOPs of training a model like `model` on `rows` by `recipe`, as the engine would charge them.

    One update is made, on a copy, for each size of batch; all others of that size cost the same.

    Raises:
        InputError: if it costs none, because the model multiplies no matrices.
    """
    sizes = Counter(len(part) for part in split_rows(torch.arange(len(rows)), recipe.batch_size))
    flops = recipe.epochs * sum(n * _flops_of_update(model, rows, size, recipe) for size, n in sizes.items())
    if not flops:
        raise InputError("training this model costs no FLOPs that are counted; give reference as a number")
    return flops


def _flops_of_update(model: nn.Module, rows: Examples, size: int, recipe: Recipe) -> int:
    device = rows.targets.device
    first = rows.rows(torch.arange(size, device=device))
    once = Recipe(
        epochs=1, batch_size=size, optimizer=recipe.optimizer, lr=1e-9, augmentation=recipe.augmentation,
        label_smoothing=recipe.label_smoothing, bf16=recipe.bf16,
    )  # fmt: skip
    trained = thaw_if_whole(copy.deepcopy(model))
    with global_seed(0), torch.enable_grad():
        updates = train_updates(trained, first, once, Streams(0, device))
        return run_to_end(updates, trained, Meter(device, recipe.bf16)).flops
