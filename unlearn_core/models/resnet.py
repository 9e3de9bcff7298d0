"""Residual networks for small images."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from unlearn_core import checks
from unlearn_core.models.building import BatchNorm2d, GlobalAverage, GlobalMaximum, chain, image_shape
from unlearn_core.registry import MODELS


@MODELS.register("resnet9")
@dataclass(frozen=True, kw_only=True)
class ResNet9:
    """ResNet-9, the quick network of the DAWNBench CIFAR-10 entries: eight convolutions and a linear head.

    Source: D. Page, "How to train your ResNet", 2018; without its fixed scaling of the logits.
    """

    width: int = 64  # channels of the first convolution; the last has eight times as many

    def __post_init__(self) -> None:
        checks.in_range("width", self.width, 1, 10**4)

    def build(self, *, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        channels, _, _ = image_shape("resnet9", input_shape, least=8)
        w = self.width
        return chain(
            stem=_conv_relu(channels, w),
            conv1=_conv_relu(w, 2 * w, pool=True),
            residual1=Residual(_conv_relu(2 * w, 2 * w), _conv_relu(2 * w, 2 * w)),
            conv2=_conv_relu(2 * w, 4 * w, pool=True),
            conv3=_conv_relu(4 * w, 8 * w, pool=True),
            residual2=Residual(_conv_relu(8 * w, 8 * w), _conv_relu(8 * w, 8 * w)),
            head=nn.Sequential(GlobalMaximum(), nn.Linear(8 * w, classes)),
        )


@MODELS.register("resnet18")
@dataclass(frozen=True, kw_only=True)
class ResNet18:
    """ResNet-18 for small images: 3x3 stem with stride 1 and no max-pooling.

    Source: He et al., CVPR 2016, arXiv:1512.03385; the stem is the usual change for 32x32 images.
    """

    width: int = 64  # channels of the first stage; each later stage doubles them

    def __post_init__(self) -> None:
        checks.in_range("width", self.width, 1, 10**4)

    def build(self, *, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        channels, _, _ = image_shape("resnet18", input_shape)
        blocks: dict[str, nn.Module] = {"stem": _conv_relu(channels, self.width)}
        inside = self.width
        for stage in range(4):
            outside = self.width * 2**stage
            blocks[f"layer{stage + 1}_0"] = BasicBlock(inside, outside, stride=1 if stage == 0 else 2)
            blocks[f"layer{stage + 1}_1"] = BasicBlock(outside, outside, stride=1)
            inside = outside
        return chain(**blocks, head=nn.Sequential(GlobalAverage(), nn.Linear(inside, classes)))


class Residual(nn.Module):
    """x + body(x)."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class BasicBlock(nn.Module):
    """relu(shortcut(x) + body(x)): two 3x3 convolutions, and a 1x1 convolution as shortcut where the shape changes."""

    def __init__(self, inside: int, outside: int, *, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inside, outside, 3, stride=stride, padding=1, bias=False),
            BatchNorm2d(outside),
            nn.ReLU(),
            nn.Conv2d(outside, outside, 3, padding=1, bias=False),
            BatchNorm2d(outside),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != outside:
            self.shortcut.append(nn.Conv2d(inside, outside, 1, stride=stride, bias=False))
            self.shortcut.append(BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.shortcut(x) + self.body(x))


def _conv_relu(inside: int, outside: int, *, pool: bool = False) -> nn.Sequential:
    """3x3 convolution, BatchNorm and ReLU; `pool` halves height and width."""
    layers = [nn.Conv2d(inside, outside, 3, padding=1, bias=False), BatchNorm2d(outside), nn.ReLU()]
    return nn.Sequential(*layers, *([nn.MaxPool2d(2)] if pool else []))
