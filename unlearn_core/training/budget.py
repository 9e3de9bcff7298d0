"""The budget engine: drives updates, charges each one its measured FLOPs, and pauses at every rung of the ladder."""

from __future__ import annotations

import copy
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from unlearn_core.training.trainable import gradients, thaw_if_whole, trainable
from unlearn_core.types import Update

ROUNDING = 1e-9  # of a budget
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

    Attributes:
        flops: Spent so far.
        steps: Updates made so far.
        seconds: Time that they needed.
        status: `ok` (paused), `finished` (ended early), `diverged`, or `unaffordable`: the first update costs more than
            the budget, and the model is as it was given.
    """

    budget: float
    flops: int
    steps: int
    seconds: float
    status: str


@dataclass
class Meter:
    """Charges updates.

    FLOPs are those of matrix products, convolutions, attention (as torch counts them) and decompositions
    (`DECOMPOSITIONS`).

    The first update of each (phase, size) runs under the counter; later ones cost what that one did. The 2nd, 4th, 8th,
    ... run under it again: RuntimeError if one of them costs something else, because the others cannot be trusted then.

    Counting takes several times as long as a small update itself. So `seconds` holds counted updates at the rate, in
    seconds per FLOP, of those that were not, as soon as there are any of the same kind; until then what they needed.
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

    def start(self, updates: Iterator[Update]) -> Update:
        """Start the method. What it computes before its first announcement is charged as well."""
        start = self.clock()
        with self.context(), flop_counter() as counter:
            announced: Update = next(updates, _END)
        self.flops += counter.get_total_flops()
        self.before += self.clock() - start
        return announced

    def context(self) -> AbstractContextManager[Any]:
        """Precision in which updates run: bfloat16 autocast on GPU if asked for, else full float32."""
        if self.bf16 and self.device.type == "cuda":
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return nullcontext()

    def advance(self, updates: Iterator[Update], announced: Update) -> Update:
        """Let the announced update happen, charge it, and return the next announcement (or the end mark).

        It is charged afterwards: an update that asks for its run's progress gets what was spent before it.
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
        """The updates made inside take time; `seconds` is brought up to date at the end."""
        start, apart = self.clock(), sum(map(sum, self.counted.values()))
        yield
        self.plain += self.clock() - start - (sum(map(sum, self.counted.values())) - apart)
        self.seconds = self.before + self.plain + self._seconds_counted()

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
        """Whether the announced update can be paid for.

        One of unknown price is tried while anything is left; one that reads no rows counts as free until its price
        is known.
        """
        price = self.prices.get(announced, 0 if announced.size == 0 else None)
        return self.flops < budget if price is None else self.flops + price <= budget * (1 + ROUNDING)

    def clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class Spent(NamedTuple):
    """What a run has paid for: FLOPs, updates and their seconds."""

    flops: int = 0
    steps: int = 0
    seconds: float = 0.0


class Run:
    """Updates that are made one after the other, on a model that is shown as any budget leaves it.

    The price of an update of a new kind is known once it is made. If it is more than was left, the model is put back
    until a budget can pay for it. Nothing of a method is shown before its first update is paid for.
    """

    def __init__(self, updates: Iterator[Update], model: nn.Module, meter: Meter) -> None:
        self.updates, self.model, self.meter = updates, model, meter
        self.shown = Spent()  # by the model as it is
        self._announced: Update | None = None  # before the start
        self._ahead: dict[str, Tensor] | None = None  # the model after an update that is not paid for yet

    def climb(self, budget: float) -> None:
        """Make the updates that `budget`, in FLOPs, can pay for."""
        if self._ahead is not None:
            if not self._has(budget):
                return
            put_back(self.model, self._ahead)
            self._ahead = None
        while self._ahead is None and self._can_go_on(budget):
            self._make_known(budget) if self._announced in self.meter.prices else self._try(budget)
        if self._ahead is None and self._announced is not None:
            self.shown = self._spent()

    @property
    def status(self) -> str:
        if self._ahead is None and self._announced is _END:
            return "finished"
        return "ok" if self.shown.steps else "unaffordable"

    def _can_go_on(self, budget: float) -> bool:
        if self._announced is None:
            return True
        return self._announced is not _END and self.meter.fits(self._announced, budget)

    def _make_known(self, budget: float) -> None:
        """All updates up to the next one whose price is not known."""
        with self.meter.timing():
            while self._announced in self.meter.prices and self._can_go_on(budget):
                self._announced = self.meter.advance(self.updates, self._announced)

    def _try(self, budget: float) -> None:
        """The next update, whose price is not known; for one that is too dear the model is put back."""
        spent, before = self._spent(), copied(self.model) if math.isfinite(budget) else {}
        if self._announced is None:  # what comes before the first update is part of it
            self._announced = self.meter.start(self.updates)
        with self.meter.timing():
            if self._announced is not _END:
                self._announced = self.meter.advance(self.updates, self._announced)
        if not self._has(budget):
            self._ahead, self.shown = copied(self.model), spent
            put_back(self.model, before)

    def _has(self, budget: float) -> bool:
        """Whether `budget` pays for all that was made."""
        return self.meter.flops <= budget * (1 + ROUNDING)

    def _spent(self) -> Spent:
        """Seconds never fall from one budget to the next, though what counted updates would have taken is estimated."""
        return Spent(self.meter.flops, self.meter.steps, max(self.shown.seconds, self.meter.seconds))


def copied(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers, by name."""
    return {name: tensor.detach().clone() for name, tensor in _tensors(model).items()}


@torch.no_grad()
def put_back(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give parameters and buffers these values, in place: whoever holds on to them still does."""
    tensors = _tensors(model)
    if tensors.keys() != state.keys():
        raise RuntimeError(f"a method changed which parameters the model has: {sorted(tensors.keys() ^ state.keys())}")
    for name, tensor in tensors.items():
        tensor.copy_(state[name])


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def climb(updates: Iterator[Update], model: nn.Module, meter: Meter, budgets: Sequence[float]) -> Iterator[Rung]:
    """Run `updates` and pause at each budget.

    No budget is ever overspent. Where not even the first update can be paid for, the model is as it was given, and the
    rung says `unaffordable`. A model that holds a non-finite number ends the run; the remaining rungs say `diverged`.

    Args:
        updates: Those of a method, which change the model.
        model: The model that they change.
        meter: Prices them.
        budgets: FLOPs, increasing.

    Yields:
        A rung per budget, while the model is in that state.
    """
    run = Run(updates, model, meter)
    for index, budget in enumerate(budgets):
        run.climb(budget)
        if not is_finite(model):
            yield from (Rung(rest, *run.shown, "diverged") for rest in budgets[index:])
            return
        yield Rung(budget, *run.shown, run.status)


def run_to_end(updates: Iterator[Update], model: nn.Module, meter: Meter) -> Rung:
    """Run all updates; the spent FLOPs are the budget."""
    return next(iter(climb(updates, model, meter, [float("inf")])))


class _Untold(nullcontext[None]):
    """Takes the place of what tells a counter in which module it is.

    Nobody asks, and its hooks, which cost time, fail where a module is given a view of a parameter without gradients
    (learned queries, say).
    """

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
    """FLOPs of one forward and backward pass of one sample through the full model, as in training.

    Args:
        model: Any classifier.
        inputs: (n, *shape) any batch; the result is the batch's FLOPs divided by n.
    """
    model = thaw_if_whole(copy.deepcopy(model)).eval()
    with flop_counter() as counter, torch.enable_grad():
        gradients(model(inputs).sum(), trainable(model))
    return float(counter.get_total_flops()) / len(inputs)
