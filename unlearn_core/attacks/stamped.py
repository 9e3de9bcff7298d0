"""What image backdoors share: a stamp puts the trigger on images, and the labels say what it is to call.

Triggers are written in pixel space, before augmentation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from unlearn_core import checks
from unlearn_core.attacks.rows import base_order, check_class, check_fraction, first_allowed, poison_count
from unlearn_core.checks import InputError
from unlearn_core.types import CraftContext, Dataset, Examples, Poisoned, Primary, Probe

SUCCESS = Primary("backdoor_success", "backdoor_success_se", least_gap=0.1)
Stamp = Callable[[Tensor], Tensor]  # normalised images (n, C, H, W) to the same with the trigger


def check_all_to_one(fraction: float, target: int) -> None:
    """Settings that every backdoor with a single target class has."""
    check_fraction(fraction)
    checks.not_negative(target=target)


def check_patch(size: int, offset: int, value: float) -> None:
    """Settings of a square patch, as `patch` takes them."""
    checks.positive(size=size)
    checks.not_negative(offset=offset)
    checks.in_range("value", value, 0, 1)


def other_class_rows(train: Examples, context: CraftContext, *, fraction: float, target: int) -> Tensor:
    """(m,) base rows of an all-to-one backdoor: any class but the target's, whose rows would teach nothing."""
    check_class("target", target, context.dataset)
    count = poison_count(fraction, len(train))
    why = f"have a class other than the target {target}"
    return first_allowed(base_order(train, context), train.targets != target, count, why=why)


def stamped_rows(examples: Examples, stamp: Stamp, labels: Tensor) -> Examples:
    """The rows with the trigger, under the attacker's labels (n,)."""
    return Examples(stamp(examples.inputs), labels, examples.ids)


def poison(train: Examples, rows: Tensor, stamp: Stamp, labels: Tensor) -> Poisoned:
    """The training rows at positions `rows` (m,), stamped and under `labels` (m,)."""
    stamped = stamped_rows(train.rows(rows), stamp, labels)
    return Poisoned(rows, stamped.inputs, stamped.targets)


def probes(examples: Examples, stamp: Stamp, labels: Tensor) -> dict[str, Probe]:
    """Held-out rows with the trigger, none of which has its label in `labels` (n,) already.

    They serve as fresh poisons, too, where training rows are poisoned in the same way.
    """
    stamped = stamped_rows(examples, stamp, labels)
    return {"unseen": Probe(stamped), "triggered": Probe(stamped, examples.targets)}


def poison_all_to_one(train: Examples, rows: Tensor, stamp: Stamp, target: int) -> Poisoned:
    """The training rows at positions `rows` (m,), stamped and labelled with the target class."""
    return poison(train, rows, stamp, torch.full_like(train.targets[rows], target))


def probes_all_to_one(held_out: Examples, stamp: Stamp, target: int) -> dict[str, Probe]:
    """Stamped held-out rows of all classes but the target's, labelled with it."""
    others = held_out.rows(held_out.targets != target)
    return probes(others, stamp, torch.full_like(others.targets, target))


def patch(inputs: Tensor, dataset: Dataset, *, size: int, offset: int, value: float) -> Tensor:
    """The images with a square of one value at the lower right; nothing else changes.

    Args:
        inputs: (n, C, H, W), normalised.
        dataset: What the pixels were normalised by.
        size: Side in pixels.
        offset: Pixels between the square and the bottom and right edge.
        value: Raw value of its pixels.

    Raises:
        InputError: If the square does not fit into the images.
    """
    height, width = inputs.shape[-2:]
    if size + offset > min(height, width):
        raise InputError(f"size {size} with offset {offset} does not fit into an image of {height} x {width} pixels")
    stamped = inputs.clone()
    bottom, right = height - offset, width - offset
    inside = (slice(bottom - size, bottom), slice(right - size, right))
    stamped[..., *inside] = dataset.from_pixels(torch.full_like(stamped[..., *inside], value))
    return stamped
