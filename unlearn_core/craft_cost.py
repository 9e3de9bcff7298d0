"""What making an attack's poisons costs, apart from the training that a surrogate model takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from unlearn_core.budget import Meter, Rung, flop_counter
from unlearn_core.scenario import Scenario, Trained
from unlearn_core.types import Poisoned


class CraftMeter(TorchDispatchMode):
    """Adds up FLOPs and seconds of everything that runs under it; it may be entered again.

    FLOPs are those of `budget.flop_counter`, by its formulas. That counter itself cannot watch a whole crafting: it
    hooks modules to tell their shares apart, which `autograd.grad` refuses on leaves, and looks for a decomposition
    of every operation, which nearly doubles the time of a small net. This one adds about a fifth to it, and next to
    nothing where operations are large; composite operations in inference mode are not seen.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.flops, self.seconds = 0, 0.0
        self._formulas, self._clock, self._entered = flop_counter().flop_registry, Meter(device).clock, 0.0

    def __enter__(self) -> CraftMeter:
        self._entered = self._clock()
        super().__enter__()
        return self

    def __exit__(self, *problem: Any) -> None:
        super().__exit__(*problem)
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


def craft(scenario: Scenario, clean: Callable[[], Trained]) -> tuple[Poisoned, dict[str, float]]:
    """The poisons of a scenario and what they cost.

    Args:
        clean: finds or trains the model on the rows without poison; asked only by attacks that use one.
    Returns: the poisons; and `seconds` and `flops` of crafting, with `surrogate_seconds` and `surrogate_flops` of
        that model's training, once however often it is asked for, as it was when it was trained; 0 without one.
    """
    meter, surrogate = CraftMeter(scenario.device), Rung(0, 0, 0, 0.0, "finished")

    def clean_model() -> nn.Module:
        nonlocal surrogate
        with meter.apart():
            model, surrogate = clean()
        return model

    context = scenario.context(clean_model)
    with meter:
        poisoned = scenario.attack.craft(scenario.dataset.train, context)
    cost = {"seconds": meter.seconds, "flops": float(meter.flops)}
    return poisoned, cost | {"surrogate_seconds": surrogate.seconds, "surrogate_flops": float(surrogate.flops)}
