"""The budget engine: drives updates, charges each one its measured FLOPs, and pauses at every rung of the ladder."""

from __future__ import annotations

import copy
import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from unlearn_core.trainable import gradients, thaw_if_whole, trainable
from unlearn_core.types import Update

PRICE_TOLERANCE = 0.01  # of a price, by which updates of the same kind may differ
DECOMPOSITIONS = {
    torch.ops.aten._linalg_eigh: lambda a, *_, **__: 9 * math.prod(a) * a[-1],
    torch.ops.aten.linalg_qr: lambda a, *_, **__: 4 * math.prod(a) * a[-1],
    torch.ops.aten._linalg_svd: lambda a, *_, **__: 22 * math.prod(a) * min(a[-2:]),
    torch.ops.aten._linalg_solve_ex: lambda a, b, *_, **__: 2 * math.prod(a) * a[-1] // 3 + 2 * math.prod(b) * a[-1],
    torch.ops.aten.linalg_cholesky_ex: lambda a, *_, **__: math.prod(a) * a[-1] // 3,
}
"""FLOPs by shape of the operands (torch counts none of them): the leading terms of the usual dense algorithms, vectors
included, as in Golub and Van Loan, Matrix Computations, 4th edition, sections 3.2, 4.2, 5.2, 8.3, 8.6."""

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
    """Charges updates. FLOPs are those of matrix products, convolutions, attention (as torch counts them) and
    decompositions (`DECOMPOSITIONS`).

    The first update of each (phase, size) runs under the counter; later ones cost what that one did. The 2nd, 4th, 8th,
    ... run under it again: RuntimeError if one of them costs something else, because the others cannot be trusted then.

    Counting takes several times as long as a small update itself. So `seconds` holds counted updates at the rate, in
    seconds per FLOP, of those that were not, as soon as there are any of the same kind; until then what they took.
    """

    device: torch.device
    bf16: bool = False
    flops: int = 0
    steps: int = 0
    seconds: float = 0.0
    prices: dict[Update, int] = field(default_factory=dict)
    made: Counter[Update] = field(default_factory=Counter)
    before: float = 0.0  # seconds ahead of the first update
    plain: float = 0.0  # seconds of the updates that were not counted
    counted: dict[Update, list[float]] = field(default_factory=dict)  # seconds of each one that was

    def context(self) -> AbstractContextManager[Any]:
        """Precision in which updates run: bfloat16 autocast on GPU if asked for, else full float32."""
        if self.bf16 and self.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()

    def advance(self, updates: Iterator[Update], announced: Update) -> Update:
        """Let the announced update happen, charge it, and return the next announcement (or the end mark).

        It is charged afterwards: an update that asks for its run's progress is told what was spent before it.
        """
        self.made[announced] += 1
        checked = self.made[announced].bit_count() == 1  # a power of two
        following = self._counted(updates, announced) if checked else self._plain(updates)
        self.flops += self.prices[announced]
        self.steps += 1
        return following

    def _plain(self, updates: Iterator[Update]) -> Update:
        with self.context():
            return next(updates, _END)

    def _counted(self, updates: Iterator[Update], announced: Update) -> Update:
        start = self.clock()
        with self.context(), flop_counter() as counter:
            following: Update = next(updates, _END)
        self.counted.setdefault(announced, []).append(self.clock() - start)
        self._check_price(announced, counter.get_total_flops())
        return following

    @contextmanager
    def timing(self) -> Iterator[None]:
        """The updates made inside take time; `seconds` is brought up to date at the end, and never falls."""
        start, apart = self.clock(), sum(map(sum, self.counted.values()))
        yield
        self.plain += self.clock() - start - (sum(map(sum, self.counted.values())) - apart)
        self.seconds = max(self.seconds, self.before + self.plain + self._seconds_counted())

    def _seconds_counted(self) -> float:
        """What the counted updates would have taken."""
        weights = {kind: max(1, price) for kind, price in self.prices.items()}
        others = {kind: self.made[kind] - len(taken) for kind, taken in self.counted.items()}
        flops = sum(weights[kind] * number for kind, number in others.items())
        rate = self.plain / flops if flops else math.inf
        return sum(
            min(taken, rate * weights[kind]) if others[kind] else taken
            for kind, all_taken in self.counted.items()
            for taken in all_taken
        )

    def _check_price(self, announced: Update, cost: int) -> None:
        price = self.prices.setdefault(announced, cost)
        if abs(cost - price) > PRICE_TOLERANCE * price:
            what = f"updates announced as phase {announced.phase!r}, size {announced.size!r}"
            raise RuntimeError(f"{what} cost {price} FLOPs and {cost} FLOPs; announce different work differently")

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
        with meter.timing():
            while announced is not _END and meter.fits(announced, budget):
                announced = meter.advance(updates, announced)
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
    with meter.context(), flop_counter() as counter:
        announced: Update = next(updates, _END)
    meter.flops += counter.get_total_flops()
    meter.before += meter.clock() - start
    return announced


def _rung(meter: Meter, budget: float, status: str) -> Rung:
    return Rung(budget, meter.flops, meter.steps, meter.seconds, status)


class _Untold(nullcontext[None]):
    """Takes the place of what tells a counter in which module it is. Nobody asks, and its hooks, which cost time, fail
    where a module is given a view of a parameter without gradients (learned queries, say)."""

    parents = frozenset({"Global"})


def flop_counter() -> FlopCounterMode:
    """Counts the FLOPs of what runs under it."""
    counter = FlopCounterMode(display=False, custom_mapping=DECOMPOSITIONS)
    counter.mod_tracker = _Untold()  # type: ignore[assignment]
    return counter


def is_finite(model: nn.Module) -> bool:
    """Whether every parameter and running statistic is a finite number."""
    tensors = [t for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()]
    return bool(torch.stack([t.detach().sum().isfinite() for t in tensors]).all()) if tensors else True


def sample_pass_flops(model: nn.Module, inputs: torch.Tensor) -> float:
    """FLOPs of one forward and backward pass of one sample through the full model, as training it takes.

    inputs: (n, *shape) any batch; the result is the batch's FLOPs divided by n.
    """
    model = thaw_if_whole(copy.deepcopy(model)).eval()
    with flop_counter() as counter, torch.enable_grad():
        gradients(model(inputs).sum(), trainable(model))
    return float(counter.get_total_flops()) / len(inputs)
