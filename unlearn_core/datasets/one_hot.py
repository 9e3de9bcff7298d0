"""One-hot labels: several columns of which one, and only one, is hot in each row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

STEM = re.compile(r"(.+?)[ ._:=\[-][^._]*")  # target of target.0, target_a, target[1]


def one_hot(values: np.ndarray) -> np.ndarray | None:
    """(n,) positions of the ones in (n, k) values, None unless each row holds zeros and a single one."""
    if values.dtype.kind not in "biuf" or values.shape[1] < 2:
        return None
    exact = ((values == 0) | (values == 1)).all() and (values.astype(np.float64).sum(1) == 1).all()
    return values.argmax(1) if exact else None


def mates(columns: Mapping[str, np.ndarray], target: str) -> list[str]:
    """Columns that are one-hot together with `target`: of one name, or side by side; they give the label away."""
    own = _hot(columns[target])
    if own is None:
        return []
    names = list(columns)
    family = [name for name in names if name != target and stem(name) == stem(target)]
    if family and _complete([columns[name] for name in family], own):
        return family
    return _neighbours(columns, names, target)


def _neighbours(columns: Mapping[str, np.ndarray], names: Sequence[str], target: str) -> list[str]:
    """The shortest run of columns around `target` that is one-hot with it."""
    place = names.index(target)
    hot = {place: _hot(columns[target])}
    first = place
    while first > 0 and (found := _hot(columns[names[first - 1]])) is not None:
        first -= 1
        hot[first] = found
    for start in range(place, first - 1, -1):
        total = np.sum([hot[i] for i in range(start, place + 1)], axis=0)
        end = place
        while total.max() <= 1:
            if total.min() == 1:
                return [name for name in names[start : end + 1] if name != target]
            end += 1
            following = _hot(columns[names[end]]) if end < len(names) else None
            if following is None:
                break
            total = total + following
    return []


def parts(columns: Mapping[str, np.ndarray], name: str) -> list[str]:
    """Columns called `name` and something more that are one-hot together, if there are any."""
    family = [column for column in columns if column != name and stem(column) == name]
    hot = [_hot(columns[column]) for column in family]
    complete = len(hot) > 1 and all(h is not None for h in hot) and (np.sum(hot, axis=0) == 1).all()
    return family if complete else []


def stem(name: str) -> str:
    matched = STEM.fullmatch(name)
    return matched[1] if matched else name


def _complete(others: Sequence[np.ndarray], own: np.ndarray) -> bool:
    hot = [_hot(cells) for cells in others]
    return all(h is not None for h in hot) and bool((np.sum([own, *hot], axis=0) == 1).all())


def _hot(cells: np.ndarray) -> np.ndarray | None:
    """(n,) 1 where a column of two values has the larger one, else 0; None for any other column."""
    if len(set(map(str, cells[:1000]))) > 2:  # decides most columns at once
        return None
    values = cells if cells.dtype.kind in "biuf" else np.array([str(cell).strip() for cell in cells])
    distinct = np.unique(values)
    return (values == distinct[1]).astype(np.int64) if len(distinct) == 2 else None
