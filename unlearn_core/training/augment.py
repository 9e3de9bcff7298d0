"""Augmentation of whole batches on the device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from unlearn_core.checks import InputError

AUGMENTATIONS = ("none", "flip", "crop", "flip_crop")


def augment(images: Tensor, kind: str, random: torch.Generator) -> Tensor:
    """Augment a batch (n, C, H, W).

    `flip` mirrors each image with probability 1/2, `crop` shifts it by up to 4 pixels along each axis, `flip_crop`
    does both.

    Random crops hide Gaussian poisons from their score in small networks: recipes for those leave them out.

    Raises:
        InputError: For anything but images.
    """
    if kind == "none":
        return images
    if images.dim() != 4:
        raise InputError(f"augmentation {kind!r} is for images, but the inputs have shape {tuple(images.shape[1:])}")
    if "flip" in kind:
        mirrored = torch.rand(len(images), generator=random, device=images.device) < 0.5
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
    return shift(images, 4, random) if "crop" in kind else images


def shift(images: Tensor, reach: int, random: torch.Generator) -> Tensor:
    """Crop each image at its own random offset, after padding by `reach` pixels with its mirror image."""
    n, _, height, width = images.shape
    padded = functional.pad(images, (reach,) * 4, mode="reflect")
    top, left = (torch.randint(2 * reach + 1, (n, 1), generator=random, device=images.device) for _ in range(2))
    rows = (top + torch.arange(height, device=images.device)).view(n, 1, height, 1)
    columns = (left + torch.arange(width, device=images.device)).view(n, 1, 1, width)
    index = torch.arange(n, device=images.device).view(n, 1, 1, 1)
    channels = torch.arange(images.shape[1], device=images.device).view(1, -1, 1, 1)
    return padded[index, channels, rows, columns]
