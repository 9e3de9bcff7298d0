"""What crafting costs: FLOPs against torch's counter and by hand, and that a surrogate's training is charged apart."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import pytest
import torch
from torch.nn.functional import cross_entropy

from tests.contracts.tiny import CPU, model
from tests.core.attacks.scenes import DATA
from unlearn_core.attacks import Gaussian, GradientCanceling, GradientMatching
from unlearn_core.models import Linear
from unlearn_core.scenarios.craft_cost import craft
from unlearn_core.scenarios.scenario import Scenario, Trained
from unlearn_core.training import Recipe
from unlearn_core.training.budget import Rung, flop_counter
from unlearn_core.training.craft_meter import CraftMeter, priced
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


@pytest.mark.parametrize(
    "attack",
    [
        GradientMatching(fraction=0.2, restarts=2, steps=4, flip=True, shift=1.0),
        GradientCanceling(fraction=0.1, steps=4),
        GradientCanceling(fraction=0.1, steps=3, scope="all"),
    ],
    ids=["matching", "head", "all"],
)
@pytest.mark.filterwarnings("ignore:the target weights need")
def test_what_a_search_repeats_is_counted_once_at_the_same_price(attack, monkeypatch):
    net, counted = model("convnet"), []
    plain = CraftMeter.__torch_dispatch__

    def dispatch(self, *args, **kwargs):
        counted.append(1)
        return plain(self, *args, **kwargs)

    def crafted():
        counted.clear()
        made, cost = craft(scenario(attack), lambda: Trained(net, Rung(float("inf"), 0, 0, 0.0, "finished")))
        return made, cost["flops"], len(counted)

    monkeypatch.setattr(CraftMeter, "__torch_dispatch__", dispatch)
    once, price, few = crafted()
    for name in ("cross_gradients", "canceling_search"):
        monkeypatch.setattr(f"unlearn_core.attacks.{name}.priced", lambda *key: contextlib.nullcontext())
    always, whole, many = crafted()
    assert price == whole > 0
    assert few < 0.7 * many
    assert torch.equal(once.inputs, always.inputs)


def test_a_price_is_that_of_its_key_alone():
    def multiply(rows):
        with priced("product", rows):
            torch.ones(rows, 3) @ torch.ones(3, 2)

    multiply(5)  # nobody counts
    with CraftMeter(CPU) as meter:
        for rows in (5, 5, 7, 5):
            multiply(rows)
    assert meter.flops == 2 * 3 * 2 * (5 + 5 + 7 + 5)
    assert CraftMeter.running is None
    with CraftMeter(CPU) as other, flop_counter():  # a mode within it
        multiply(5)
        multiply(5)
    assert (other.flops, other.prices) == (2 * 3 * 2 * 10, {})
