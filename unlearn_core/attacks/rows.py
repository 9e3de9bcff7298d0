"""Which training rows an attack takes."""

from __future__ import annotations

from torch import Tensor

from unlearn_core import checks
from unlearn_core.checks import InputError
from unlearn_core.types import CraftContext, Dataset, Examples


def check_fraction(fraction: float) -> None:
    """Poisons must be some, and fewer than the rest."""
    if not 0 < fraction <= 0.5:
        raise InputError(f"fraction must lie in (0, 0.5], but got {fraction!r}")


def check_class(field: str, value: int, dataset: Dataset) -> None:
    """A setting that names a class must name one of the data set's."""
    if value >= dataset.classes:
        raise InputError(f"{field} must be a class below {dataset.classes} for {dataset.name}, but got {value!r}")


def check_numeric(attack: str, train: Examples, dataset: Dataset) -> None:
    """An attack that changes inputs by degrees, pixels for instance, cannot poison token ids."""
    if not train.inputs.is_floating_point():
        raise InputError(
            f"attack {attack} needs inputs of numbers, not token ids as in {dataset.name}; choose an attack on labels, "
            "such as label_flip"
        )


def check_images(attack: str, train: Examples, dataset: Dataset) -> None:
    """An attack that writes a picture into inputs can poison nothing else."""
    check_numeric(attack, train, dataset)
    if train.inputs.dim() != 4:
        raise InputError(
            f"attack {attack} needs images, but {dataset.name} has inputs of shape {tuple(train.inputs.shape[1:])}; "
            "choose another attack, such as gaussian or label_flip"
        )


def check_bounded(setting: str, train: Examples, dataset: Dataset) -> None:
    """A setting that keeps inputs in the range of pixels makes sense for pixels alone: other numbers have no range."""
    if train.inputs.dim() != 4:
        raise InputError(f"{setting} keeps inputs valid pixels, but {dataset.name} has none; set {setting} to false")


def poison_count(fraction: float, rows: int) -> int:
    """round(fraction · rows), at least one."""
    checks.positive(rows=rows)
    return max(1, round(fraction * rows))


def base_order(train: Examples, context: CraftContext) -> Tensor:
    """(n,) the one seeded permutation that every attack draws its rows from.

    So attacks share rows where they can, and a smaller fraction is contained in a larger one. Where other attacks of a
    bundle have rows already, it is shorter and lacks those.
    """
    order = context.rng.permutation(len(train), "base").to(train.targets.device)
    return order if context.taken is None else order[~context.taken[order]]


def first_allowed(order: Tensor, allowed: Tensor, count: int, *, why: str) -> Tensor:
    """The first `count` positions of `order` whose entry in the mask `allowed` (n,) is true."""
    candidates = order[allowed[order]]
    if len(candidates) < count:
        raise InputError(f"fraction asks for {count} poisons, but only {len(candidates)} rows {why}; lower it")
    return candidates[:count]
