"""Every attack on the pretended device: crafting, its probes, and the evaluator of its scenario."""

from typing import NamedTuple

import pytest
import torch

from tests.contracts.attack_cases import CLEAN, build, data_of, each
from tests.device.gates import CLOSE, leaving_nothing, placed
from tests.device.pretended import CPU, CUDA
from unlearn_core.models import Gpt2, Mlp
from unlearn_core.scenarios.craft_cost import CraftMeter
from unlearn_core.scenarios.scenario import Scenario, build_evaluator, clean_rows, split_poisoned
from unlearn_core.seeding import Streams
from unlearn_core.training import Recipe
from unlearn_core.types import CraftContext

pytestmark = pytest.mark.filterwarnings("ignore:the target weights need")  # gradient canceling, on toy data
RECIPE = Recipe(epochs=2, batch_size=16, lr=0.01, bf16=False)
WAITS = 20  # of the host for one measurement of a model, most of them for one array each
WAITS_OF_PARTS = 40  # of the attack that is made of others


class Outcome(NamedTuple):
    """An attack, and how a model that was trained on its poisons measures."""

    poisons: dict[str, torch.Tensor]  # on the host
    metrics: dict[str, float]
    waits: int  # of the host for the metrics


def crafted(name, settings, device):
    """The attack, its data and its poisons, which must be where the data is."""
    attack, data = build(name, settings), data_of(name, settings).to(device)
    context = CraftContext(data, Streams(1, device), lambda: placed(CLEAN, device))
    with CraftMeter(device):
        poisoned = attack.craft(data.train, context)
    assert {poisoned.rows.device, poisoned.inputs.device, poisoned.targets.device} == {device}
    return attack, data, poisoned


def outcome(name, settings, device, ledger):
    """The whole way of an attack."""
    attack, data, poisoned = crafted(name, settings, device)
    net = Gpt2(layers=1, width=16, heads=2) if data.tokenizer else Mlp(hidden=(6,))
    scenario = Scenario(data, net, RECIPE, attack, 0, device)
    full, _ = poisoned.apply(data.train)
    corrupted, oracle = (scenario.train(rows).model for rows in (full, clean_rows(poisoned, data.train)))
    references = {"corrupted": corrupted, "oracle": oracle}
    evaluator = build_evaluator(scenario, poisoned, data.test, references, relearn=True)
    split_poisoned(poisoned, data.train, discovery_rate=0.5, rng=Streams(0, device))
    ledger.forget_counts()
    metrics, waits = evaluator(corrupted), ledger.waits.total()
    named = {"rows": poisoned.rows, "inputs": poisoned.inputs, "targets": poisoned.targets, **poisoned.evidence}
    return Outcome({key: value.to(CPU) for key, value in named.items()}, metrics, waits)


@each
def test_an_attack_and_its_measurement_are_those_of_the_cpu(gpu, name, settings):
    found = leaving_nothing(gpu.ledger, lambda: outcome(name, settings, CUDA, gpu.ledger))
    if not data_of(name, settings).tokenizer:
        assert found.waits <= (WAITS_OF_PARTS if name == "bundle" else WAITS)
    expected = outcome(name, settings, CPU, gpu.ledger)
    assert found.poisons.keys() == expected.poisons.keys()
    for key, value in expected.poisons.items():
        torch.testing.assert_close(found.poisons[key], value, **CLOSE, msg=lambda text, key=key: f"{key}: {text}")
    assert found.metrics == pytest.approx(expected.metrics, rel=1e-3, abs=1e-3, nan_ok=True)
