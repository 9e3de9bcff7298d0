"""What crafting costs: FLOPs against torch's counter and by hand, and that a surrogate's training is charged apart."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.contracts.tiny import CPU, model
from tests.core.attacks.scenes import DATA
from unlearn_core.attacks import Gaussian
from unlearn_core.budget import Rung, flop_counter
from unlearn_core.craft_cost import CraftMeter, craft
from unlearn_core.models import Linear
from unlearn_core.scenario import Scenario, Trained
from unlearn_core.training import Recipe
from unlearn_core.types import Poisoned


def step(net):
    cross_entropy(net(DATA.train.inputs[:8]), DATA.train.targets[:8]).backward()
    torch.linalg.eigh(torch.eye(5))


@pytest.mark.parametrize("name", ["linear", "mlp", "convnet", "resnet9"])
def test_flops_are_those_of_the_counter_that_prices_updates(name):
    with flop_counter() as counter:
        step(model(name))
    with CraftMeter(CPU) as meter:
        step(model(name))
    assert meter.flops == counter.get_total_flops() > 0


def test_gradients_of_inputs_are_counted_and_pauses_are_not():
    net, inputs = torch.nn.Sequential(torch.nn.Linear(3, 2)), torch.ones(4, 3, requires_grad=True)
    with CraftMeter(CPU) as meter:
        with meter.apart():
            net(inputs)
        torch.autograd.grad(net(inputs).sum(), inputs)  # a leaf, which torch's counter of modules refuses
    assert meter.flops == 2 * (2 * 4 * 3 * 2)  # forward, and backward to the inputs
    assert meter.seconds > 0


@dataclass(frozen=True)
class Asking:
    """Asks for the clean model twice and multiplies once."""

    fraction: float = 0.1

    def craft(self, train, context):
        assert context.clean_model() is context.clean_model()
        rows = torch.arange(2)
        return Poisoned(rows, train.inputs[rows] + 0 * (torch.ones(2, 5) @ torch.ones(5, 1)).sum(), train.targets[rows])


def scenario(attack):
    return Scenario(DATA, Linear(), Recipe(epochs=1), attack, 0, CPU)


def test_a_surrogate_is_charged_once_and_apart():
    net = model("linear")

    def clean():
        step(net)
        return Trained(net, Rung(float("inf"), 7000, 3, 2.5, "finished"))

    _, cost = craft(scenario(Asking()), clean)
    assert cost["flops"] == 2 * 2 * 5
    assert (cost["surrogate_flops"], cost["surrogate_seconds"]) == (7000, 2.5)


def test_an_attack_without_a_surrogate_trains_none():
    def clean():
        raise AssertionError("not asked for")

    poisoned, cost = craft(scenario(Gaussian(fraction=0.1)), clean)
    assert len(poisoned.rows)
    assert (cost["flops"], cost["surrogate_flops"], cost["surrogate_seconds"]) == (0, 0, 0)
