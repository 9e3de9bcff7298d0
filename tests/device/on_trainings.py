"""Trainings of every family of models on the pretended device."""

from dataclasses import replace

import pytest
import torch

from tests.contracts import tiny
from tests.device.gates import FULL, check_same, train, training
from tests.device.pretended import CPU, CUDA
from unlearn_core.models import ConvNet, ResNet18, build_model
from unlearn_core.models.token_noise import with_keys
from unlearn_core.training import Recipe

AUGMENTED = (3, 16, 16)
IMAGE_MODELS = [*tiny.MODELS, "resnet18"]
precisions = pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16"])


def model(name):
    if name == "resnet18":
        return build_model(ResNet18(width=2), input_shape=tiny.SHAPE, classes=tiny.CLASSES, seed=0)
    return tiny.model(name)


@precisions
@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_the_host_never_waits_for_a_step_on_images(gpu, name, bf16):
    training(gpu, model(name), tiny.RETAIN, replace(tiny.RECIPE, bf16=bf16))


@pytest.mark.parametrize(
    "changes",
    [dict(augmentation="flip"), dict(augmentation="flip_crop", optimizer="adamw", lr=1e-3), dict(label_smoothing=0.1)],
    ids=["flip", "flip_crop-adamw", "smoothed"],
)
def test_nor_with_other_recipes(gpu, changes):
    net = build_model(ConvNet(width=2), input_shape=AUGMENTED, classes=tiny.CLASSES, seed=0)
    training(gpu, net, tiny.examples(41, shape=AUGMENTED), replace(tiny.RECIPE, **changes))


@precisions
@pytest.mark.parametrize("noisy", [False, True], ids=["plain", "noisy"])
def test_on_text_it_waits_once_to_know_which_rows_have_noise(gpu, noisy, bf16):
    data, recipe = tiny.TEXT.retain, Recipe(epochs=2, batch_size=16, optimizer="adamw", lr=1e-3, bf16=bf16)
    if noisy:
        data = replace(data, inputs=with_keys(data.inputs, torch.arange(1, len(data) + 1), 0.5))
    training(gpu, model("gpt2"), data, recipe, waits=1, doubles=noisy)


@pytest.mark.parametrize("name", [*IMAGE_MODELS, "gpt2"])
def test_a_training_gives_the_numbers_of_the_cpu(gpu, name):
    net = model(name)
    data = tiny.data_for(net).retain
    check_same(train(net, data, FULL, CUDA), train(net, data, FULL, CPU))
