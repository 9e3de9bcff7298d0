"""What making an attack's poisons costs, apart from the training that a surrogate model takes."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from unlearn_core.scenarios.scenario import Scenario, Trained
from unlearn_core.training.budget import Rung
from unlearn_core.training.craft_meter import CraftMeter
from unlearn_core.types import Poisoned


def craft(scenario: Scenario, clean: Callable[[], Trained]) -> tuple[Poisoned, dict[str, float]]:
    """The poisons of a scenario and what they cost.

    Args:
        scenario: The scenario whose attack crafts them.
        clean: Finds or trains the model on the rows without poison; asked only by attacks that use one.

    Returns:
        The poisons; and `seconds` and `flops` of crafting, with `surrogate_seconds` and `surrogate_flops` of that
        model's training, once however often it is asked for, as it was when it was trained; 0 without one.
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
