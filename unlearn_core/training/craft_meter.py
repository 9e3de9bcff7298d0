"""Counts what runs under it; what is repeated is counted once."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

from unlearn_core.training.budget import Meter, flop_counter


class CraftMeter(TorchDispatchMode):
    """Adds up FLOPs and seconds of everything that runs under it; it may be entered again.

    FLOPs are those of `budget.flop_counter`, by its formulas. That counter itself cannot watch a whole crafting: it
    hooks modules to tell their shares apart, which `autograd.grad` refuses on leaves, and looks for a decomposition
    of every operation. This one still doubles the time of small operations, so that what a search repeats is `priced`;
    composite operations in inference mode are not seen.
    """

    running: ClassVar[CraftMeter | None] = None

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.flops, self.seconds = 0, 0.0
        self.prices: dict[tuple[Hashable, ...], int] = {}
        self._formulas, self._clock, self._entered = flop_counter().flop_registry, Meter(device).clock, 0.0

    def __enter__(self) -> CraftMeter:
        self._entered = self._clock()
        CraftMeter.running = self
        super().__enter__()
        return self

    def __exit__(self, *problem: Any) -> None:
        super().__exit__(*problem)
        CraftMeter.running = None
        self.seconds += self._clock() - self._entered

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = self._formulas.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        return result

    @contextmanager
    def apart(self) -> Iterator[None]:
        """What runs inside is not charged; only for use while the meter runs."""
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()

    @contextmanager
    def uncounted(self) -> Iterator[None]:
        """What runs inside takes time, but no FLOPs; only for use while no other mode is within this one."""
        super().__exit__(None, None, None)
        try:
            yield
        finally:
            super().__enter__()


@contextmanager
def priced(*key: Hashable) -> Iterator[None]:
    """Charge what runs inside the same FLOPs whenever it has this key.

    A meter counts it the first time alone and charges that price from then on, without counting. Without a meter
    nothing happens.
    """
    meter = CraftMeter.running
    if meter is None or _get_current_dispatch_mode() is not meter:
        yield
    elif key in meter.prices:
        meter.flops += meter.prices[key]
        with meter.uncounted():
            yield
    else:
        before = meter.flops
        yield
        meter.prices[key] = meter.flops - before
