"""What a run leaves alive, and what must be the same on every device, told without one."""

import gc
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

import unlearn_core.attacks  # noqa: F401  (registers them)
from sweeps.trials.scenario_cache import RunEnvironment, ScenarioCache
from tests.contracts import tiny
from tests.contracts.attack_cases import CASES, build, data_of
from tests.contracts.methods import TINY
from tests.contracts.tiny import CPU, model
from tests.core.attacks.scenes import DATA
from tests.sweeps.tiny import tiny as tiny_sweep
from unlearn_core import seeding
from unlearn_core.hypotheses.convex import Squared
from unlearn_core.registry import UNLEARNERS
from unlearn_core.scenarios import scenario
from unlearn_core.scenarios.scenario import Split, unlearn
from unlearn_core.seeding import Streams
from unlearn_core.types import CraftContext, _constant


def alive() -> int:
    """Numbers in the tensors that are not frozen; garbage that waits is among them."""
    found = [o for o in gc.get_objects() if type(o) in (Tensor, nn.Parameter)]
    return sum(tensor.numel() for tensor in found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        *((name, {}) for name in UNLEARNERS.names()),
        ("l1_sparse", {"step": "prox"}),
        ("ngd", {"noise_mode": "langevin", "radius": 5.0}),
        ("salun", {"mask": "soft"}),
    ],
)
def test_nothing_is_alive_after_a_run_without_a_collection(name, settings):
    corrupted, data = model("convnet"), Split(tiny.RETAIN, tiny.FORGET)
    method = UNLEARNERS.get(name)(**TINY[name] | settings)

    def run():
        how = {"recipe": tiny.RECIPE, "rng": Streams(0, CPU), "budgets": [2e6]}
        unlearn(method, corrupted, data, evaluator=lambda m: {}, **how)

    run()  # what is made once, such as constants
    gc.collect()
    gc.freeze()  # what is here now is not looked at below
    gc.disable()
    try:
        run()
        assert alive() < 0.1 * sum(p.numel() for p in corrupted.parameters())
    finally:
        gc.enable()


class OnAnother(Streams):
    """Streams of a device that draws other numbers than the CPU does."""

    def __call__(self, *labels):
        return seeding.generator(self.seed, "on another device", *labels)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "settings"), CASES, ids=str)
@pytest.mark.filterwarnings("ignore:the target weights need")
def test_poisons_and_probes_do_not_depend_on_the_devices_random_numbers(name, settings):
    """Poisons are kept under a key that names no device, and what they are measured on is drawn again."""
    data, attack = data_of(name, settings), build(name, settings)
    net = model("convnet") if data is DATA else None
    contexts = [CraftContext(data, streams(3, CPU), lambda: net) for streams in (Streams, OnAnother)]
    first, second = (attack.craft(data.train, context) for context in contexts)
    for part in ("rows", "inputs", "targets"):
        assert torch.equal(getattr(first, part), getattr(second, part)), part
    for one, other in zip(*(attack.probes(data.validation, c).values() for c in contexts), strict=True):
        assert torch.equal(one.examples.inputs, other.examples.inputs)


def test_what_is_discovered_does_not_depend_on_the_devices_random_numbers():
    data, attack = DATA, build("badnets", {"size": 2})
    poisoned = attack.craft(data.train, CraftContext(data, Streams(0, CPU), lambda: None))
    first, second = (scenario.discovery_order(poisoned, streams(3, CPU)) for streams in (Streams, OnAnother))
    assert torch.equal(first, second)


def test_streams_on_the_cpu_are_those_that_a_cpu_has_anyway():
    streams = Streams(5, CPU)
    order = torch.randperm(20, generator=streams("base"))
    assert torch.equal(streams.permutation(20, "base"), order)
    assert Streams(5, torch.device("meta")).on_cpu("base").device == CPU
    assert Streams(5, torch.device("meta")).permutation(20, "base").device.type == "meta"


def test_a_channels_constants_are_made_once_for_each_device_and_type():
    values = (0.25, 0.5, 0.75)
    made = [DATA.channel(values, torch.zeros(2, 3, 4, 4)) for _ in range(3)]
    assert len({part.data_ptr() for part in made}) == 1
    assert torch.equal(made[0], torch.zeros(1).new_tensor(values).view(1, 3, 1, 1))
    assert DATA.channel(values, torch.zeros(2, 3, dtype=torch.float64)).dtype == torch.float64
    assert DATA.channel(values, torch.zeros(2, 3, device="meta")).device.type == "meta"
    with torch.inference_mode():
        inside = _constant((0.125,), torch.float32, CPU)
    assert not inside.is_inference()


def test_a_ridge_solution_stays_on_its_device():
    x, y = torch.empty(7, 3, dtype=torch.float64, device="meta"), torch.zeros(7, dtype=torch.long, device="meta")
    assert Squared(decay=0.1).fit(x, y, 4).theta.device.type == "meta"


@pytest.mark.slow
def test_torch_is_asked_for_all_that_repeats():
    ask = """
import os, torch
from unlearn_core.training.repeatable import make_repeatable
make_repeatable()
cudnn = torch.backends.cudnn
print(os.environ["CUBLAS_WORKSPACE_CONFIG"], torch.are_deterministic_algorithms_enabled(),
      torch.is_deterministic_algorithms_warn_only_enabled(), cudnn.deterministic, cudnn.benchmark)
"""
    clean = {k: v for k, v in os.environ.items() if k != "CUBLAS_WORKSPACE_CONFIG"}
    for given, said in ({}, ":4096:8"), ({"CUBLAS_WORKSPACE_CONFIG": ":16:8"}, ":16:8"):
        run = subprocess.run([sys.executable, "-c", ask], env=clean | given, capture_output=True, text=True, check=True)
        assert run.stdout.split() == [said, "True", "True", "True", "False"]


def test_only_a_worker_on_cuda_asks_for_it(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("sweeps.trials.scenario_cache.make_repeatable", lambda: asked.append(1))
    ScenarioCache(tiny_sweep(), RunEnvironment(tmp_path))
    assert asked == []
    ScenarioCache(tiny_sweep(), RunEnvironment(tmp_path, device="cuda", gpus=1))
    assert asked == [1]
