"""A small convolutional network that trains in seconds on a CPU."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from unlearn_core import checks
from unlearn_core.models.building import BatchNorm2d, chain, image_shape
from unlearn_core.registry import MODELS


@MODELS.register("convnet")
@dataclass(frozen=True, kw_only=True)
class ConvNet:
    """Three stride-2 convolutions of width, 2 width and 4 width channels, then a linear head."""

    width: int = 32  # channels of the first convolution
    batch_norm: bool = True

    def __post_init__(self) -> None:
        checks.in_range("width", self.width, 1, 10**4)

    def build(self, *, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        channels, height, width = image_shape("convnet", input_shape)
        conv1 = self._block(channels, self.width)
        conv2 = self._block(self.width, 2 * self.width)
        conv3 = self._block(2 * self.width, 4 * self.width)
        features = 4 * self.width * -(-height // 8) * -(-width // 8)  # each stride halves a side, rounding up
        head = nn.Sequential(nn.Flatten(), nn.Linear(features, classes))
        return chain(conv1=conv1, conv2=conv2, conv3=conv3, head=head)

    def _block(self, inside: int, outside: int) -> nn.Sequential:
        # BatchNorm subtracts the mean, so a bias before it would never get a gradient.
        conv = nn.Conv2d(inside, outside, 3, stride=2, padding=1, bias=not self.batch_norm)
        norm = [BatchNorm2d(outside)] if self.batch_norm else []
        return nn.Sequential(conv, *norm, nn.ReLU())
