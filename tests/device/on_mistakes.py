"""The gates see mistakes: each that is planted here ends in the error that is named."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import pytest

from tests.contracts import tiny
from tests.contracts.attack_cases import ROWS
from tests.contracts.methods import build
from tests.device import gates, on_attacks
from tests.device.gates import MemoryLeftError
from tests.device.planted import planted
from tests.device.pretended import CUDA, MixedDevicesError
from unlearn_core.attacks import blended, gaussian, label_flip
from unlearn_core.models import gpt2
from unlearn_core.scenarios import evaluation
from unlearn_core.training import loop as training
from unlearn_core.unlearners import expansion, fisher_forgetting, influence

RECIPE = replace(tiny.RECIPE, epochs=1)
ORDER = "torch.randperm(len(examples), generator=random, device=examples.targets.device)"
STEP = "loss(batch).backward()"
OUTPUT = "model(inputs), targets"


class Mistake(NamedTuple):
    """`wrong` in the place of `right` in `function`, and the error that running `work` must end in."""

    function: Callable[..., Any]
    right: str
    wrong: str
    work: str  # a model to train, an unlearner, or an attack
    error: type[Exception]
    says: str


MIXED = (MixedDevicesError, "two devices|device type for generator|on the same device")
WAITS = (AssertionError, "waits: ")
MISTAKES = {
    "order drawn without a device": Mistake(
        training.batches, ORDER, "torch.randperm(len(examples), generator=random)", "linear", *MIXED
    ),
    "order drawn on the CPU": Mistake(
        training.batches, ORDER, "torch.randperm(len(examples))", "linear", AssertionError, "index to device at"
    ),
    "loss read in every step": Mistake(
        training.descend, STEP, "value = loss(batch); value.backward(); value.item()", "linear", *WAITS
    ),
    "loss compared in every step": Mistake(
        training.descend, STEP, "value = loss(batch); value.backward() if value > 0 else None", "linear", *WAITS
    ),
    "rows chosen by a mask": Mistake(
        training.train_updates, OUTPUT, "model(inputs)[targets >= 0], targets", "linear", *WAITS
    ),
    "a constant made in every step": Mistake(
        training.train_updates, OUTPUT, "model(inputs) * torch.tensor([2.0], device=targets.device), targets",
        "linear", AssertionError, "to device at",
    ),
    "loss in float64": Mistake(
        training.train_updates, OUTPUT, "model(inputs).double(), targets", "linear", AssertionError, "float64"
    ),
    "weights that are no numbers": Mistake(
        training.train_updates, OUTPUT, "model(inputs) / 0, targets", "linear", AssertionError, "not finite"
    ),
    "optimizer in a cycle": Mistake(
        training.descend, STEP, "optimizer.itself = optimizer; loss(batch).backward()",
        "linear", MemoryLeftError, "bytes are left",
    ),
    "causal mask on the CPU": Mistake(
        gpt2.Attention.forward, "dtype=torch.bool, device=x.device", "dtype=torch.bool", "gpt2", *MIXED
    ),
    "more waits than a method may take": Mistake(
        training.descend, STEP, "value = loss(batch); value.backward(); value.item()", "bad_teacher", *WAITS
    ),
    "noise without a device": Mistake(
        fisher_forgetting.FisherForgetting.updates, "device=parameter.device, ", "", "fisher_forgetting", *MIXED
    ),
    "masks on the CPU": Mistake(
        expansion.draw_masks, "generator=random, device=random.device", "device='cpu'", "rem", *MIXED
    ),
    "a sum on the CPU": Mistake(
        influence.damped_inverse_product, "device=gram.device", 'device="cpu"', "influence", *MIXED
    ),
    "fresh noise on the CPU": Mistake(evaluation.fresh_noise, ".to(noise.device)", ".cpu()", "gaussian", *MIXED),
    "arrays taken from the device": Mistake(
        evaluation.to_numpy, ".cpu()", "", "gaussian", TypeError, "can't convert cuda:0"
    ),
    "a pattern on the CPU": Mistake(blended.Blended.pattern, ".to(like)", "", "blended", *MIXED),
    "poisons on the CPU": Mistake(gaussian.Gaussian.noise, ".to(device)", "", "gaussian", *MIXED),
    "labels from a stream on the CPU": Mistake(
        label_flip.uniform_other, "steps.to(targets.device)", "steps", "label_flip", *MIXED
    ),
}  # fmt: skip


def work(gpu, name):
    """The gate of a training, an unlearner or an attack."""
    if name in ROWS:
        on_attacks.outcome(name, ROWS[name][0], CUDA, gpu.ledger)
    elif name in {**tiny.MODELS, **tiny.TEXT_MODELS}:
        net = tiny.model(name)
        gates.training(gpu, net, tiny.data_for(net).retain, RECIPE, waits=int(name == "gpt2"))
    else:
        gates.unlearning(
            gpu, build(name), tiny.model("mlp"), doubles=True, waits=lambda phase: 2 if phase == "distil" else 4
        )


@pytest.mark.parametrize("name", MISTAKES)
def test_a_planted_mistake_is_seen(gpu, name):
    mistake = MISTAKES[name]
    with planted(mistake.function, mistake.right, mistake.wrong), pytest.raises(mistake.error, match=mistake.says):
        work(gpu, mistake.work)


@pytest.mark.parametrize("name", sorted({mistake.work for mistake in MISTAKES.values()}))
def test_without_it_all_is_well(gpu, name):
    work(gpu, name)
