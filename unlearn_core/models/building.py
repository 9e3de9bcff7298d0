"""What every model family shares: the contract, the way to build one, and checks of the input shape."""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from torch import Tensor, nn
from torch.nn.functional import batch_norm

from unlearn_core.checks import InputError
from unlearn_core.models.initialise import initialise
from unlearn_core.seeding import derive, global_seed

HERE = "unlearn_core.models."  # of whose layers `reset_parameters` is known to draw all that `build` draws


class ModelSettings(Protocol):
    """A frozen dataclass of settings, registered in MODELS."""

    def build(self, *, input_shape: tuple[int, ...], classes: int) -> nn.Module:
        """A model from (n, *input_shape) to (n, classes) logits.

        Any module will do, whatever its `forward` does; `unlearn_core.structure.blocks` defines what counts as its
        blocks. Of the models here these are the direct children, applied one after the other; the last is the head.

        Initial weights are those of `build` itself, called again under the seed: whatever it does to them, as reading
        them from a file, is done for every model that starts afresh. Only the models here are drawn layer by layer, by
        `reset_parameters()`. Parameters whose `requires_grad` is false keep the values that `build` gave them first
        and never change.
        """
        ...


def build_model(settings: ModelSettings, *, input_shape: tuple[int, ...], classes: int, seed: int) -> nn.Module:
    """A new model on the CPU whose weights are a function of (settings, input_shape, classes, seed).

    Frozen weights are a function of the first three.

    Raises:
        InputError: If there are fewer than two classes.
    """
    if classes < 2:
        raise InputError(f"classes must be at least 2, but got {classes}")

    def build() -> nn.Module:
        return settings.build(input_shape=tuple(input_shape), classes=classes)

    with global_seed(derive(0, "build")):
        model = build()
    if not type(settings).__module__.startswith(HERE) and not hasattr(model, "factory"):
        model.factory = build  # type: ignore[assignment]  # modules take any attribute
    initialise(model, seed)
    return model


def chain(**blocks: nn.Module) -> nn.Sequential:
    """The named blocks in a row."""
    return nn.Sequential(OrderedDict(blocks))


def image_shape(model: str, input_shape: tuple[int, ...], *, least: int = 1) -> tuple[int, int, int]:
    """(channels, height, width), or InputError if the input is no image of at least `least` pixels a side."""
    if len(input_shape) != 3:
        raise InputError(f"model {model} needs images (channels, height, width), but got inputs of shape {input_shape}")
    channels, height, width = input_shape
    if min(height, width) < least:
        raise InputError(f"model {model} needs images of {least}x{least} or more pixels, but got {height}x{width}")
    return channels, height, width


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation that also takes a batch with a single value per channel, whose variance is undefined.

    A row whose map has one pixel. It is normalised by the running statistics, which it leaves alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == self.num_features:
            weight, bias = self.weight, self.bias
            return batch_norm(x, self.running_mean, self.running_var, weight, bias, training=False, eps=self.eps)
        return super().forward(x)


class GlobalAverage(nn.Module):
    """(n, channels, height, width) to (n, channels) means.

    Not AdaptiveAvgPool2d, whose gradient on GPUs differs from run to run.
    """

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class GlobalMaximum(nn.Module):
    """(n, channels, height, width) to (n, channels) maxima; as for GlobalAverage, with a reproducible gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return x.amax(dim=(2, 3))
