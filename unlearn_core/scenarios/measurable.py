"""Whether an attack can be measured on the held-out rows that there are: asked before anything is trained."""

from __future__ import annotations

import numpy as np
import torch

from unlearn_core.checks import InputError, shown
from unlearn_core.metrics import compute_all
from unlearn_core.scenarios.evaluation import to_numpy
from unlearn_core.scenarios.scenario import PROBE_ROWS, head
from unlearn_core.types import Attack, CraftContext, Dataset, Examples

FIRST, PER_CLASS = 16, 4  # rows that stand for a set; all are asked only where these do not do
NAMED = 3  # classes in a message


def check_measurable(name: str, attack: Attack, dataset: Dataset, context: CraftContext) -> None:
    """Refuse data on which an attack, or a part of it, cannot be measured.

    Raises:
        InputError: If validation or test rows leave a probe of the attack without rows, or a metric of held-out rows
            and probes without a value.
    """
    for split in ("validation", "test"):
        rows: Examples = getattr(dataset, split)
        for part in (attack, *getattr(attack, "parts", ())):
            problem = _problem(part, _some(head(rows, PROBE_ROWS)), _some(rows), dataset, context)
            if problem:
                problem = _problem(part, head(rows, PROBE_ROWS), _some(rows), dataset, context)
            if problem:
                raise InputError(
                    f"attack {name!r} cannot be measured on the {split} rows: {problem}{_classes(rows, dataset)}"
                )


def _problem(attack: Attack, probed: Examples, rows: Examples, dataset: Dataset, context: CraftContext) -> str:
    """What an evaluation of `rows`, and of the probes made from `probed`, would stumble over; empty if nothing."""
    try:
        probes = attack.probes(probed, context)
    except InputError as problem:
        return str(problem)
    empty = [name for name, probe in probes.items() if not len(probe.examples)]
    if empty:
        return f"none of them can serve as {empty[0]!r}, which the attack is measured on"
    sets = {"test": rows} | {name: probe.examples for name, probe in probes.items()}
    arrays = {f"{name}_targets": examples.targets for name, examples in sets.items()}
    arrays |= {f"{name}_logits": torch.zeros(len(rows), dataset.classes) for name, rows in sets.items()}
    arrays |= {f"{name}_true": probe.true for name, probe in probes.items() if probe.true is not None}
    try:
        compute_all(to_numpy(arrays))
    except ValueError as problem:
        return str(problem)
    return ""


def _some(rows: Examples) -> Examples:
    """The first rows, and the first few of every class."""
    targets, chosen = rows.targets.cpu().numpy(), set(range(min(FIRST, len(rows))))
    order = np.argsort(targets, kind="stable")
    starts = np.unique(targets[order], return_index=True)[1]
    for members in np.split(order, starts[1:]):
        chosen |= set(members[:PER_CLASS].tolist())
    return rows.rows(torch.tensor(sorted(chosen), device=rows.targets.device))


def _classes(rows: Examples, dataset: Dataset) -> str:
    """Which classes are not among the rows, and what to do about it; empty if all are."""
    counts = torch.bincount(rows.targets, minlength=dataset.classes)
    absent = (counts == 0).nonzero().flatten().tolist()
    if not absent:
        return ""
    names = dataset.card.classes if dataset.card else tuple(map(str, range(dataset.classes)))
    listed = [str(i) if names[i] == str(i) else f"{i} ({shown(names[i], 40)})" for i in absent]
    more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
    which = "class" if len(listed) == 1 else "classes"
    fix = "hold rows of it out" if len(listed) == 1 else "hold rows of them out"
    return f"; they have no row of {which} {', '.join(listed[:NAMED])}{more}: {fix}, or let the attack aim elsewhere"
