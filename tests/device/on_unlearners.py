"""Every unlearner on the pretended device."""

import pytest

from tests.contracts import tiny
from tests.contracts.methods import build, models_for
from tests.device.gates import FULL, check_same, unlearned, unlearning
from tests.device.pretended import CPU, CUDA
from unlearn_core.registry import UNLEARNERS

WAITS = {
    "bad_teacher": {"distil": 2},
    "msg": {"reset": 40},  # once
    "potion": {"probe": 2, "try": 2},
    "rem": {"probe": 2, "npo": 1, "redirect": 5},
    "scrub_r": {"error": 1},
    "unsc": {"basis": 26},  # once for each class
}
"""Waits of the host that an update may take, by method and the first word of its phase; 0 where nothing is said. That
of GPT-2 in a forward pass is not among them."""
WAITS_ON_TEXT = WAITS | {
    "fisher_forgetting": {"fisher": 1},  # of the rows of the embedding
    "lfssd": {"fisher": 1},
    "potion": {"fisher": 1, **WAITS["potion"]},
    "ssd": {"fisher": 1},
}
IN_FLOAT64 = {"influence", "scrub_r", "unsc"}
VARIANTS = [
    ("l1_sparse", dict(step="prox")),
    ("npo", dict(optimizer="adamw", lr=1e-3)),
    ("rem", dict(bn="train")),
    ("salun", dict(mask="soft")),
]
CASES = [(name, {}, net) for name in UNLEARNERS.names() for net in ("convnet", "gpt2") if net in models_for(name)]
CASES += [(name, changes, "convnet") for name, changes in VARIANTS]


def budget(name):
    """In FLOPs. One method has no end of its own."""
    return 5e6 if name == "retrain_at_budget" else float("inf")


def case(name, changes, net):
    words = "-".join(map(str, changes.values()))
    return pytest.param(name, changes, net, id=f"{name}-{words}-{net}")


@pytest.mark.parametrize("name, changes, net", [case(*one) for one in CASES])
def test_finite_on_one_device_with_few_waits_and_nothing_is_left(gpu, name, changes, net):
    allowed = (WAITS_ON_TEXT if net == "gpt2" else WAITS).get(name, {})
    unlearning(
        gpu,
        build(name, **changes),
        tiny.model(net),
        waits=lambda phase: allowed.get(phase.split()[0], 0),
        doubles=name in IN_FLOAT64,
        budget=budget(name),
    )


@pytest.mark.parametrize("name", UNLEARNERS.names())
def test_the_numbers_are_those_of_the_cpu(gpu, name):
    net = tiny.model("mlp" if "mlp" in models_for(name) else "convnet")
    found, expected = (unlearned(build(name), net, FULL, device, budget=budget(name)) for device in (CUDA, CPU))
    check_same(found, expected)


def test_tables_name_methods():
    assert {*WAITS_ON_TEXT, *IN_FLOAT64} <= set(UNLEARNERS.names())
