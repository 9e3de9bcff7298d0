"""Flips and sub-pixel shifts of images as linear maps, so that a gradient can be taken back through them exactly.

A view of an image X is A X Bᵀ, with A and B holding the weights of bilinear interpolation along columns and rows: the
hat function of the distance between where a pixel is read and where each pixel is. Two matrix products a view, the same
bits in every run (the scattered sums of a general warp's backward pass on a GPU are not).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Views(NamedTuple):
    """One map per image. vertical: (m, H, H); horizontal: (m, W, W), with the flip in it."""

    vertical: Tensor
    horizontal: Tensor

    def of(self, images: Tensor) -> Tensor:
        """The images (m, C, H, W) as they are seen; 0, the mean pixel, moves in from outside."""
        return self.vertical.unsqueeze(1) @ images @ self.horizontal.mT.unsqueeze(1)

    def pull_back(self, gradient: Tensor) -> Tensor:
        """The gradient with respect to the images, of one (m, C, H, W) with respect to their views."""
        return self.vertical.mT.unsqueeze(1) @ gradient @ self.horizontal.unsqueeze(1)


def draw_views(images: Tensor, *, flip: bool, shift: float, random: torch.Generator) -> Views:
    """A view for each of the images: mirrored or not, then moved by its own distance.

    Args:
        images: (m, C, H, W).
        flip: Mirror each image with probability 1/2.
        shift: Moves along each axis are uniform in ±`shift` pixels.
        random: A stream on the CPU.
    """
    drawn, coins = (torch.rand(*size, len(images), generator=random) for size in ((2,), ()))
    moves = shift * (2 * drawn.to(images.device, non_blocking=True) - 1)
    mirrored = coins.to(images.device, non_blocking=True) < (0.5 if flip else 0)
    vertical, horizontal = (interpolation(size, move) for size, move in zip(images.shape[-2:], moves, strict=True))
    horizontal = torch.where(mirrored.view(-1, 1, 1), horizontal.flip(-1), horizontal)
    return Views(vertical.to(images), horizontal.to(images))


def interpolation(size: int, moves: Tensor) -> Tensor:
    """(m, size, size) weights with which each pixel of a line moved by `moves` (m,) pixels takes those of the line."""
    at = torch.arange(size, device=moves.device, dtype=moves.dtype)
    read = at.view(1, -1, 1) + moves.view(-1, 1, 1)
    return (1 - (read - at).abs()).clamp_min(0)
