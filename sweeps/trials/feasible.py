"""What can be refused of a scenario before anything is trained.

What takes a model to know is refused by the worker that has it, in the same words.
"""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from unlearn_core.attacks.rows import poison_count
from unlearn_core.checks import InputError
from unlearn_core.scenarios.measurable import check_measurable
from unlearn_core.scenarios.scenario import Scenario, check_classes, discovered_count
from unlearn_core.types import Attack, CraftContext, Examples


class NeedsModel(Exception):  # noqa: N818 - no error: the attack has passed all checks that come before
    """The attack asks for the model trained on clean rows, which is not there yet."""


def no_model() -> nn.Module:
    """In the place of the model trained on clean rows."""
    raise NeedsModel


def check_scenario(scenario: Scenario, attack: str, rates: Sequence[float]) -> None:
    """Whether the scenario can be built, as far as no model is needed. Raises InputError.

    Of an attack that ranks rows by a model only the number of poisons is known; whether they leave a class empty is
    seen when they are crafted.
    """
    data, context = scenario.dataset, scenario.context(no_model)
    rows = _rows(scenario.attack, data.train, context)
    check_rates(attack, rates, poison_count(scenario.attack.fraction, len(data.train)) if rows is None else len(rows))
    if rows is not None:
        kept = torch.ones_like(data.train.targets, dtype=torch.bool)
        kept[rows] = False
        check_classes(data.train.targets[kept], data.classes)
    with contextlib.suppress(NeedsModel):
        check_measurable(attack, scenario.attack, data, context)


def _rows(attack: Attack, train: Examples, context: CraftContext) -> Tensor | None:
    """The rows that an attack takes, or None if that depends on a model.

    Of a bundle with such a part each part is asked as if it were alone.
    """
    try:
        rows: Tensor = attack.choose_rows(train, context)
    except NeedsModel:
        for part in getattr(attack, "parts", ()):
            _rows(part, train, context)
        return None
    return rows


def check_rates(attack: str, rates: Sequence[float], poisons: int) -> None:
    """Two rates that discover equally many of an attack's poisons would be one case run twice; raises InputError."""
    counts = [discovered_count(poisons, rate) for rate in rates]
    for count in counts:
        same = [rate or "single" for rate, found in zip(rates, counts, strict=True) if found == count]
        if len(same) > 1:
            raise InputError(
                f"discovery_rates {same[0]} and {same[1]} both mean {count} of the {poisons} poisons of {attack!r}; "
                "take one out, or poison more rows"
            )


@contextlib.contextmanager
def telling(attack: str) -> Iterator[None]:
    """Says in one line, and only once, what an attack warns of inside."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warnings.filterwarnings("ignore", message=".*does not have a deterministic implementation")  # torch's, of CUDA
        yield
    for warned in [w for w in caught if w.category is UserWarning][:1]:
        print(f"warning: attack {attack!r}: {warned.message}", file=sys.stderr)
