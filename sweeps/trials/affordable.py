"""Which methods can do nothing within which budgets: shown when a sweep is planned, as no result would say why."""

from __future__ import annotations

from typing import Any, NamedTuple

from sweeps.trials.scenario_cache import ScenarioCache, first_rows
from unlearn_core.registry import UNLEARNERS
from unlearn_core.scenarios.scenario import begin
from unlearn_core.training.budget import Meter, climb
from unlearn_core.types import Task

RIVAL = "retrain_at_budget"


class TooDear(NamedTuple):
    """A method whose first update takes the `share` of the oracle's training, more than `budgets` allow."""

    method: str
    share: float
    budgets: tuple[float, ...]

    def __str__(self) -> str:
        budgets = f"budget{'s' if len(self.budgets) > 1 else ''} {', '.join(f'{b:g}' for b in self.budgets)}"
        return (
            f"{self.method} can do nothing within {budgets}: its first update, with default settings, takes "
            f"{self.share:.2g} of the oracle's training; raise the budgets, or fix a smaller batch_size"
        )


def too_dear(work: ScenarioCache, training: float) -> list[TooDear]:
    """Prices the first update of every method, and of retrain@b, on rows as the sweep has them.

    Args:
        work: Data and models of the sweep.
        training: FLOPs of training the oracle.
    """
    methods = {name: method.build({}) for name, method in work.sweep.methods.items()}
    shares = {name: first_price(work, method) / training for name, method in methods.items()}
    if methods:
        shares[RIVAL] = first_price(work, UNLEARNERS.get(RIVAL)()) / training
    found = [TooDear(n, share, tuple(b for b in work.sweep.budgets if b < share)) for n, share in shares.items()]
    return [one for one in found if one.budgets]


def first_price(work: ScenarioCache, method: Any) -> float:
    """FLOPs of a method's first update that is not free; 0 if it makes none."""
    scenario, train = work.scenario(next(iter(work.sweep.attacks)), seed=0), work.dataset.train
    forget, retain = first_rows(train, max(1, round(scenario.attack.fraction * len(train))))
    model, meter = scenario.fresh_model("price"), Meter(work.device, work.sweep.recipe.bf16)
    task = Task(model, retain, forget, work.sweep.recipe, scenario.streams("price"), lambda: 0.0)
    next(climb(begin(method, task), model, meter, [1.0]))  # pays for nothing, so the first update is tried and no more
    return float(meter.flops)
