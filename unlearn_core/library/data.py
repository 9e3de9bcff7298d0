"""Rows as users have them, checked and made into what methods read."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unlearn_core.checks import InputError, shown
from unlearn_core.scenarios.method_check import one_line
from unlearn_core.scenarios.scenario import Split
from unlearn_core.training import Recipe, evaluating
from unlearn_core.types import Examples

Array: TypeAlias = Tensor | NDArray[Any]
Rows: TypeAlias = tuple[Array, Array | None] | Examples | None
"""(inputs, labels), both with one row per example."""

FORM = "(inputs, labels), tensors or numpy arrays"
NO_LABEL = -1
"""Stands for a label that was not given: no class, so that no loss takes it for one."""
TRIED = 2
"""Rows that the model is shown before a run, to see what it answers."""


def check_rows(model: nn.Module, retain: Rows, forget: Rows, device: torch.device) -> Split:
    """Copies of both sets on the model's device; one that was not given has no rows.

    Raises:
        InputError: for the first thing that is wrong: form, type, shape, length, a value that is not finite.
    """
    reads_tokens = any(isinstance(module, nn.Embedding) for module in model.modules())
    given = {name: _examples(name, rows, reads_tokens) for name, rows in (("retain", retain), ("forget", forget))}
    there = {name: rows for name, rows in given.items() if rows is not None}
    if not there:
        raise InputError("neither retain nor forget was given; a method reads at least one of them")
    shapes = {name: tuple(rows.inputs.shape[1:]) for name, rows in there.items()}
    if len(set(shapes.values())) > 1:
        raise InputError(f"rows of retain and forget differ in shape: {shapes['retain']} and {shapes['forget']}")
    usual = next(iter(there.values()))
    sets = [given[name] or usual.rows(torch.arange(0)) for name in ("retain", "forget")]
    if isinstance(retain, Examples) or isinstance(forget, Examples):
        return Split(*(rows.to(device) for rows in sets))
    numbers = torch.arange(sum(map(len, sets))).split([len(rows) for rows in sets])
    return Split(*(Examples(s.inputs, s.targets, ids).to(device) for s, ids in zip(sets, numbers, strict=True)))


def _examples(name: str, rows: Any, reads_tokens: bool) -> Examples | None:
    if rows is None:
        return None
    y: Tensor | None
    if isinstance(rows, Examples):
        x, y, ids = rows.inputs, rows.targets, rows.ids
    elif isinstance(rows, tuple | list) and len(rows) == 2:
        x, y = _tensor(f"{name} inputs", rows[0]), None if rows[1] is None else _tensor(f"{name} labels", rows[1])
        ids = torch.arange(len(x))
    else:
        raise InputError(f"{name} must be {FORM}, but got {_kind(rows)}")
    inputs = _inputs(name, x, reads_tokens)
    labels = torch.full((len(x),), NO_LABEL) if y is None else _labels(name, y, len(x))
    return Examples(inputs, labels, ids.clone())


def _tensor(what: str, values: Any) -> Tensor:
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "fiub":
            raise InputError(f"{what} must be numbers, but got an array of {values.dtype}")
        values = torch.from_numpy(np.ascontiguousarray(values, dtype=_torchs(values.dtype)))
    if not isinstance(values, Tensor):
        raise InputError(f"{what} must be a tensor or a numpy array, but got {_kind(values)}")
    if values.layout is not torch.strided:
        raise InputError(f"{what} must be a dense tensor, but got {values.layout}; convert it with .to_dense()")
    if values.dim() == 0:
        raise InputError(f"{what} must have one row per example, but got a single number")
    return values.detach()


def _torchs(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The nearest type that torch has: of this machine's byte order, and no longer than double."""
    return np.dtype(np.float64) if dtype == np.longdouble else dtype.newbyteorder("=")


def _inputs(name: str, x: Tensor, reads_tokens: bool) -> Tensor:
    if not x.numel():
        raise InputError(f"{name} is empty; give at least one row")
    if x.dim() < 2:
        raise InputError(f"{name} inputs must have the shape (n, *row), but got {tuple(x.shape)}")
    if x.is_floating_point():
        single = x.to(torch.float32, copy=True)
        if not bool(single.isfinite().all()):
            bad = int((~single.isfinite()).flatten(1).any(1).nonzero()[0])
            raise InputError(f"{name} inputs hold a number that is not finite in float32, first in row {bad}")
        return single
    if reads_tokens and x.dtype in (torch.int32, torch.int64):
        return x.to(torch.int64, copy=True)
    read = "int64 token ids" if reads_tokens else "floats, scaled as in the model's training"
    raise InputError(f"{name} inputs must be {read}, but got {x.dtype}".replace("torch.", ""))


def _labels(name: str, y: Tensor, rows: int) -> Tensor:
    if y.dim() != 1 or y.is_floating_point() or y.dtype == torch.bool or y.is_complex():
        hint = "; of one-hot rows take argmax(1)" if y.dim() == 2 else ""
        kind = str(y.dtype).removeprefix("torch.")
        raise InputError(f"{name} labels must be (n,) class numbers, but got {kind} of shape {tuple(y.shape)}{hint}")
    if len(y) != rows:
        raise InputError(f"{name} has {rows} inputs, but {len(y)} labels")
    y = y.to(torch.int64, copy=True)
    if int(y.min()) < 0:
        raise InputError(f"{name} labels must be class numbers from 0, but got {int(y.min())}")
    return y


def check_outputs(model: nn.Module, split: Split) -> None:
    """The model answers with finite logits, one per class, and every label is one of the classes.

    Raises:
        InputError: if it does not, or cannot read the rows at all.
    """
    for name, rows in split._asdict().items():
        if len(rows):
            _check_logits(model, name, rows)


def _check_logits(model: nn.Module, name: str, examples: Examples) -> None:
    rows = examples.inputs[_tried(examples.inputs)]
    try:
        with evaluating(model), torch.no_grad(), torch.random.fork_rng(devices=[]):
            logits = model(rows)
    except Exception as problem:
        read = f"{name} inputs of shape {tuple(rows.shape)}"
        raise InputError(f"the model cannot read {read}: {one_line(problem)}") from problem
    if (
        not isinstance(logits, Tensor)
        or logits.dim() != 2
        or len(logits) != len(rows)
        or not logits.is_floating_point()
    ):
        got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"the model must give logits (n, classes), but for {len(rows)} rows it gives {got}")
    if not bool(logits.isfinite().all()):
        raise InputError(f"the model's outputs on the first {name} rows are not finite")
    if (largest := int(examples.targets.max())) >= logits.shape[1]:
        raise InputError(f"{name} labels go up to {largest}, but the model's {logits.shape[1]} outputs end at "
                         f"class {logits.shape[1] - 1}")  # fmt: skip


def _tried(inputs: Tensor) -> Tensor:
    """Numbers of the rows that the model is shown: the first, and of token ids those with the extreme ones."""
    first = torch.arange(min(TRIED, len(inputs)), device=inputs.device)
    if inputs.is_floating_point():
        return first
    ids = inputs.flatten(1)
    return torch.cat([first, torch.stack([ids.amin(1).argmin(), ids.amax(1).argmax()])]).unique()


def check_augmentation(recipe: Recipe, split: Split) -> None:
    """Only images can be augmented.

    Raises:
        InputError: for other rows.
    """
    if recipe.augmentation != "none" and split.retain.inputs.dim() != 4:
        shape = tuple(split.retain.inputs.shape)
        raise InputError(
            f"augmentation {recipe.augmentation!r} is for images (n, c, h, w), but rows are {shape}; set none"
        )


def _kind(value: object) -> str:
    return f"{type(value).__name__} {shown(value, 40)}"
