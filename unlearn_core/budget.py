"""The budget engine: drives updates, charges each one its measured FLOPs, and pauses at every rung of the ladder."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unlearn_core.types import Update

_END: Any = object()


class Rung(NamedTuple):
    """State of a run when it is paused; the model itself is the snapshot.

    flops, steps, seconds: spent so far. status: `ok` (paused), `finished` (ended early) or `diverged`.
    """

    budget: float
    flops: int
    steps: int
    seconds: float
    status: str


@dataclass
class Meter:
    """Charges updates. FLOPs are those of matrix products, convolutions and attention, as torch counts them.

    The first update of each (phase, size) runs under torch's counter; later ones cost what that one did.
    """

    device: torch.device
    bf16: bool = False
    flops: int = 0
    steps: int = 0
    seconds: float = 0.0
    prices: dict[Update, int] = field(default_factory=dict)

    def context(self) -> AbstractContextManager[Any]:
        """Precision in which updates run: bfloat16 autocast on GPU if asked for, else full float32."""
        if self.bf16 and self.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()

    def advance(self, updates: Iterator[Update], announced: Update) -> Update:
        """Let the announced update happen, charge it, and return the next announcement (or the end mark).

        It is charged afterwards: an update that asks for its run's progress is told what was spent before it.
        """
        known = announced in self.prices
        with self.context(), nullcontext() if known else FlopCounterMode(display=False) as counter:
            following: Update = next(updates, _END)
        if counter is not None:
            self.prices[announced] = counter.get_total_flops()
        self.flops += self.prices[announced]
        self.steps += 1
        return following

    def fits(self, announced: Update, budget: float) -> bool:
        """Whether the announced update can be paid for. One of unknown price is tried while anything is left; one that
        reads no rows counts as free until its price is known."""
        price = self.prices.get(announced, 0 if announced.size == 0 else None)
        return self.flops < budget if price is None else self.flops + price <= budget * (1 + 1e-9)

    def clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def climb(updates: Iterator[Update], model: nn.Module, meter: Meter, budgets: Sequence[float]) -> Iterator[Rung]:
    """Run `updates` and pause at each budget (in FLOPs, increasing): yields while the model is in that state.

    No budget is overspent, except by at most the first update of a kind whose price is not known yet.
    A model that holds a non-finite number ends the run; the remaining rungs say `diverged`.
    """
    announced = _announce(updates, meter)
    for index, budget in enumerate(budgets):
        start = meter.clock()
        while announced is not _END and meter.fits(announced, budget):
            announced = meter.advance(updates, announced)
        meter.seconds += meter.clock() - start
        if not is_finite(model):
            yield from (_rung(meter, rest, "diverged") for rest in budgets[index:])
            return
        yield _rung(meter, budget, "finished" if announced is _END else "ok")


def run_to_end(updates: Iterator[Update], model: nn.Module, meter: Meter) -> Rung:
    """Run all updates; the spent FLOPs are the budget."""
    return next(iter(climb(updates, model, meter, [float("inf")])))


def _announce(updates: Iterator[Update], meter: Meter) -> Update:
    """Start the method. What it computes before its first announcement is charged as well."""
    start = meter.clock()
    with meter.context(), FlopCounterMode(display=False) as counter:
        announced: Update = next(updates, _END)
    meter.flops += counter.get_total_flops()
    meter.seconds += meter.clock() - start
    return announced


def _rung(meter: Meter, budget: float, status: str) -> Rung:
    return Rung(budget, meter.flops, meter.steps, meter.seconds, status)


def is_finite(model: nn.Module) -> bool:
    """Whether every parameter and running statistic is a finite number."""
    tensors = [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
    return bool(torch.stack([t.detach().sum().isfinite() for t in tensors]).all()) if tensors else True


def sample_pass_flops(model: nn.Module, inputs: torch.Tensor) -> float:
    """FLOPs of one forward and backward pass of one sample through the full model.

    inputs: (n, *shape) any batch; the result is the batch's FLOPs divided by n.
    """
    model = copy.deepcopy(model).requires_grad_(True).eval()
    with FlopCounterMode(display=False) as counter, torch.enable_grad():
        torch.autograd.grad(model(inputs).sum(), list(model.parameters()))
    return float(counter.get_total_flops()) / len(inputs)
