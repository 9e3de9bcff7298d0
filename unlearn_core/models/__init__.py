"""Models: importing this package registers every family in `unlearn_core.registry.MODELS`."""

from unlearn_core.models.building import ModelSettings, build_model
from unlearn_core.models.convnet import ConvNet
from unlearn_core.models.dense import Linear, Mlp
from unlearn_core.models.gpt2 import Gpt2
from unlearn_core.models.initialise import initialise
from unlearn_core.models.resnet import ResNet9, ResNet18

__all__ = ["ConvNet", "Gpt2", "Linear", "Mlp", "ModelSettings", "ResNet9", "ResNet18", "build_model", "initialise"]
