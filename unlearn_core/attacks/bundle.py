"""Several attacks on one training set."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from unlearn_core.checks import InputError, shown
from unlearn_core.metrics import measures_poisons
from unlearn_core.registry import ATTACKS
from unlearn_core.types import Attack, CraftContext, Examples, Part, Poisoned, Primary, Probe, Regularity


@ATTACKS.register("bundle")
@dataclass(frozen=True, kw_only=True)
class Bundle:
    """Several attacks with disjoint poisons in one training set: one corrupted model and one oracle serve them all.

    The parts take rows in turn from the one order that all attacks draw from; each leaves out what those before it have
    taken and has as many poisons as alone, so the first has the same, the others have later rows. In a bundle of larger
    fractions later parts therefore need not contain their rows in one of smaller fractions. Nothing else about a part
    depends on the others: its random streams are those that it has alone. A bundle of one part is that attack.

    What is forgotten are the poisons of all parts together, or a random share of them all by the discovery rate. The
    primary metric is that of `primary_part`; every part's metrics are recorded in columns `<part>.<column>`, with its
    own poisons as the forget set, columns without a part are about all poisons, and `unseen` poisons are those of the
    parts in proportion. The bundle succeeded if every part did. Under no poison the Gaussian score of a part is N(0, 1)
    as ever, since it is so for every model that is independent of the noise; what the parts do to each other otherwise
    is not known beforehand: compare with single attacks. Refused: an attack twice (its parts would share one name and
    one trigger), attacks that add rows, and attacks that are measured by the model's accuracy as a whole, which all
    parts change.

    Source: the idea of many experiments in one training run, Bordt, Pawelczyk, 2025, arXiv:2509.23383.
    """

    parts: tuple[Any, ...] = field(metadata={"registry": ATTACKS})  # attacks, by name or with settings
    primary_part: str | None = None  # part whose primary metric is the bundle's; None: the first

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        for part in self.parts:
            if isinstance(part, type) or not hasattr(part, "choose_rows"):
                raise InputError(f"parts must be attacks, such as Gaussian(), but got {shown(part)}")
        names = [ATTACKS.name_of(type(part)) for part in self.parts]
        if not names or len(set(names)) < len(names):
            raise InputError(f"parts must list different attacks and not be empty, but got {names}")
        for name, part in zip(names, self.parts, strict=True):
            _check_part(name, part)
        if self.primary_part is None:
            object.__setattr__(self, "primary_part", names[0])
        if self.primary_part not in names:
            raise InputError(f"primary_part {self.primary_part!r} is not in parts; choose one of {', '.join(names)}")
        if not self.fraction <= 0.5:
            raise InputError(f"fraction of all parts together must be at most 0.5, but is {self.fraction:g}; lower it")

    @property
    def named(self) -> dict[str, Attack]:
        """The parts by the names that they are registered by, in order."""
        return {ATTACKS.name_of(type(part)): part for part in self.parts}

    @property
    def fraction(self) -> float:
        """All poisons as a share of the training rows."""
        return float(sum(part.fraction for part in self.parts))

    @property
    def primaries(self) -> dict[str, Primary]:
        return {name: _as_columns(name, part.primary) for name, part in self.named.items()}

    @property
    def primary(self) -> Primary:
        return self.primaries[str(self.primary_part)]

    @property
    def regularity(self) -> Regularity:
        return self.named[str(self.primary_part)].regularity

    def choose_rows(self, train: Examples, context: CraftContext) -> Tensor:
        chosen, taken = [], torch.zeros_like(train.targets).bool()
        for name, part in self.named.items():
            chosen.append(part.choose_rows(train, replace(context, taken=taken)))
            taken = _take(taken, chosen[-1], name)
        return torch.cat(chosen)

    def craft(self, train: Examples, context: CraftContext) -> Poisoned:
        """Evidence: that of each part as `<part>.<name>`, and as `sizes` how many poisons each part has."""
        made, taken = [], torch.zeros_like(train.targets).bool()
        for name, part in self.named.items():
            made.append(part.craft(train, replace(context, taken=taken)))
            if made[-1].mode != "replace":
                raise InputError(f"part {name} adds rows; a bundle holds attacks that overwrite them; take it out")
            taken = _take(taken, made[-1].rows, name)
        evidence = {f"{n}.{k}": v for n, one in zip(self.named, made, strict=True) for k, v in one.evidence.items()}
        rows, inputs, targets = (torch.cat([getattr(one, k) for one in made]) for k in ("rows", "inputs", "targets"))
        sizes = torch.tensor([len(one.rows) for one in made])
        return Poisoned(rows, inputs, targets, evidence=evidence | {"sizes": sizes})

    def separate(self, poisoned: Poisoned) -> dict[str, Part]:
        parts, start = {}, 0
        for (name, attack), size in zip(self.named.items(), poisoned.evidence["sizes"].tolist(), strict=True):
            here, start = slice(start, start + size), start + size
            prefix = f"{name}."
            own = {k.removeprefix(prefix): v for k, v in poisoned.evidence.items() if k.startswith(prefix)}
            rows, inputs, targets = poisoned.rows[here], poisoned.inputs[here], poisoned.targets[here]
            parts[name] = Part(attack, Poisoned(rows, inputs, targets, evidence=own))
        return parts

    def probes(self, held_out: Examples, context: CraftContext) -> dict[str, Probe]:
        """`unseen` alone, of all parts in proportion to their poisons: the other probes belong to the parts."""
        unseen = [part.probes(held_out, context)["unseen"].examples for part in self.named.values()]
        shares = [part.fraction / self.fraction for part in self.parts]
        total = min(len(rows) / share for rows, share in zip(unseen, shares, strict=True))
        counts = [round(share * total) for share in shares]
        fields = ("inputs", "targets", "ids")
        mixed = (
            torch.cat([getattr(rows, name)[:count] for rows, count in zip(unseen, counts, strict=True)])
            for name in fields
        )
        return {"unseen": Probe(Examples(*mixed))}


def _check_part(name: str, part: Attack) -> None:
    if isinstance(part, Bundle):
        raise InputError("parts of a bundle cannot be bundles; list their parts instead")
    metric = part.primary.metric
    if not measures_poisons(metric):
        raise InputError(
            f"part {name} is measured by {metric}, which is about the model as a whole and so about every part; "
            "take it out and run it alone"
        )


def _as_columns(name: str, primary: Primary) -> Primary:
    """A part's primary metric by the columns that it has in a bundle."""
    metric, error, z = (column and f"{name}.{column}" for column in (primary.metric, primary.error, primary.z))
    return Primary(str(metric), str(error), primary.least_gap, z)


def _take(taken: Tensor, rows: Tensor, name: str) -> Tensor:
    """The mask of taken rows with those of part `name`, which must be free."""
    if bool(taken[rows].any()):
        raise InputError(f"part {name} takes rows that a part before it has; its attack must draw them from base_order")
    after = taken.clone()
    after[rows] = True
    return after
