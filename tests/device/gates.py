"""What must hold of work on the pretended device. Each gate raises AssertionError, or what CUDA would raise."""

from __future__ import annotations

import copy
import gc
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from tests.contracts import tiny
from tests.device.ledger import Ledger, Wait
from tests.device.pretended import CPU, CUDA, PretendedDevice
from unlearn_core.scenarios.scenario import Split, unlearn
from unlearn_core.seeding import Streams
from unlearn_core.training import Recipe, train_updates
from unlearn_core.training.budget import Meter, run_to_end
from unlearn_core.types import Examples, Task, Update

FULL = replace(tiny.RECIPE, epochs=1, bf16=False)  # float32, for what must be equal on both devices
NOISE = "unlearn_core/models/token_noise.py"  # GPT-2 asks there, once in a forward pass, which rows have noise
CHOICE = (
    "unlearn_core/gradients/row_gradients.py"  # how a model's per-sample gradients are taken is compared there, once
)
CLOSE = dict(rtol=1e-4, atol=1e-5)  # the dispatcher takes other kernels than on the CPU, which sum in another order


T = TypeVar("T")
State = dict[str, torch.Tensor]


class MemoryLeftError(AssertionError):
    """Memory of the device is held by what is done."""


class Step(NamedTuple):
    """What happened in one update."""

    phase: str
    waits: Counter[Wait]
    doubles: Counter[str]


def watched(updates: Iterator[Update], ledger: Ledger, steps: list[Step]) -> Iterator[Update]:
    """The same updates; what each of them does is added to `steps`."""
    update = next(updates, None)
    while update is not None:
        yield update
        ledger.forget_counts()
        following = next(updates, None)
        steps.append(Step(update.phase, Counter(ledger.waits), Counter(ledger.doubles)))
        update = following


@dataclass(frozen=True)
class Watched:
    """An unlearner that is looked at while it works."""

    method: Any
    ledger: Ledger
    steps: list[Step] = field(default_factory=list)

    @property
    def anytime(self) -> bool:
        return self.method.anytime

    def updates(self, task: Task) -> Iterator[Update]:
        return watched(self.method.updates(task), self.ledger, self.steps)


def leaving_nothing(ledger: Ledger, work: Callable[[], T]) -> T:
    """What `work` returns. Afterwards as many bytes must be alive as before, without the garbage collector's help.

    What torch loads at first use may hold on to whoever asked for it: only what a second run leaves, too, counts.
    """
    gc.collect()
    gc.disable()
    try:
        result, left = _leaving(ledger, work)
        if left:
            left = _leaving(ledger, work)[1]
    finally:
        gc.enable()
    if left:
        raise MemoryLeftError(f"{left} bytes are left on the device until the garbage collector comes by")
    return result


def _leaving(ledger: Ledger, work: Callable[[], T]) -> tuple[T, int]:
    before = ledger.alive
    result = work()
    return result, ledger.alive - before


def placed(net: nn.Module, device: torch.device) -> nn.Module:
    """A copy on the device, as scenarios make it."""
    return copy.deepcopy(net).to(device).to(memory_format=torch.channels_last)


def state_of(net: nn.Module) -> State:
    """Weights and buffers, on the CPU."""
    return {name: value.detach().to(CPU) for name, value in net.state_dict().items()}


def check_finite(state: State) -> None:
    bad = [name for name, value in state.items() if not value.isfinite().all()]
    assert not bad, f"{bad} are not finite"


def check_same(found: State, expected: State) -> None:
    """The same numbers, up to the order of sums."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


def check_waits(steps: list[Step], allowed: Callable[[str], int]) -> None:
    """No update waits more often than allowed for its phase."""
    for number, step in enumerate(steps):
        waits = ", ".join(f"{count} x {wait}" for wait, count in step.waits.items())
        assert step.waits.total() <= allowed(step.phase), f"update {number} of phase {step.phase} waits: {waits}"


def check_no_doubles(steps: list[Step]) -> None:
    """GPUs compute with float64 at a fraction of their speed."""
    places = sorted({place for step in steps for place in step.doubles})
    assert not places, f"updates compute in float64: {places}"


def without_known_waits(steps: list[Step]) -> list[Step]:
    """The same steps without GPT-2's own waits, and without any of the first step that compares ways to take
    per-sample gradients."""
    compares = (number for number, step in enumerate(steps) if any(w.place.startswith(CHOICE) for w in step.waits))
    first = next(compares, None)

    def left(number: int, step: Step) -> Counter[Wait]:
        if number == first:
            return Counter()
        return Counter({wait: count for wait, count in step.waits.items() if not wait.place.startswith(NOISE)})

    return [step._replace(waits=left(number, step)) for number, step in enumerate(steps)]


def train(net: nn.Module, data: Examples, recipe: Recipe, device: torch.device) -> State:
    """The state after a training on the CPU or the device."""
    net = placed(net, device)
    updates = train_updates(net, data.to(device), recipe, Streams(0, device))
    run_to_end(updates, net, Meter(device, recipe.bf16))
    return state_of(net)


def training(
    gpu: PretendedDevice, net: nn.Module, data: Examples, recipe: Recipe, *, waits: int = 0, doubles: bool = False
) -> None:
    """The gate of trainings: finite, no mixed devices, no more waits than this in any step, no float64 unless allowed,
    and nothing stays in memory."""
    steps: list[Step] = []
    check_finite(leaving_nothing(gpu.ledger, lambda: _train_watched(gpu.ledger, net, data, recipe, steps)))
    assert len(steps) > 1
    check_waits(steps, lambda phase: waits)
    if not doubles:
        check_no_doubles(steps)


def _train_watched(ledger: Ledger, net: nn.Module, data: Examples, recipe: Recipe, steps: list[Step]) -> State:
    model = placed(net, CUDA)
    updates = train_updates(model, data.to(CUDA), recipe, Streams(0, CUDA))
    run_to_end(watched(updates, ledger, steps), model, Meter(CUDA, recipe.bf16))
    return state_of(model)


def unlearned(
    method: Any, net: nn.Module, recipe: Recipe, device: torch.device, *, budget: float = float("inf")
) -> State:
    """The state after a run as in a sweep, on the CPU or the device. budget: in FLOPs."""
    states: list[State] = []

    def look(model: nn.Module) -> dict[str, float]:
        states.append(state_of(model))
        return {}

    data = Split(*(rows.to(device) for rows in tiny.data_for(net)))
    net, rng = placed(net, device), Streams(0, device)
    (measured,) = unlearn(method, net, data, recipe=recipe, rng=rng, budgets=[budget], evaluator=look)
    assert measured.rung.status in ("ok", "finished")
    return states[0]


def unlearning(
    gpu: PretendedDevice,
    method: Any,
    net: nn.Module,
    *,
    waits: Callable[[str], int] = lambda phase: 0,
    doubles: bool = False,
    budget: float = float("inf"),
) -> None:
    """The gate of unlearners, under bfloat16 autocast: finite, no mixed devices, no more waits in an update than these
    of its phase, no float64 unless allowed, and nothing stays in memory."""
    look = Watched(method, gpu.ledger)

    def work() -> None:
        check_finite(unlearned(look, net, tiny.RECIPE, CUDA, budget=budget))
        check_waits(without_known_waits(look.steps), waits)
        if not doubles:
            check_no_doubles(look.steps)

    leaving_nothing(gpu.ledger, work)
    assert look.steps
