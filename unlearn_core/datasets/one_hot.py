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
    names = list(columns)
    family = [name for name in names if stem(name) == stem(target)]
    if _complete([columns[name] for name in family]):
        return [name for name in family if name != target]
    return [name for name in _neighbours(columns, names, names.index(target)) if name != target]


def parts(columns: Mapping[str, np.ndarray], name: str) -> list[str]:
    """Columns called `name` and something more that are one-hot together, if there are any."""
    family = [column for column in columns if column != name and stem(column) == name]
    return family if _complete([columns[column] for column in family]) else []


def stem(name: str) -> str:
    """The name without a last part such as .0, _a or [1]."""
    matched = STEM.fullmatch(name)
    return matched[1] if matched else name


def _neighbours(columns: Mapping[str, np.ndarray], names: Sequence[str], place: int) -> list[str]:
    """The shortest run of columns around `place` that is one-hot."""
    start, total = place, _hot(columns[names[place]])
    while total is not None and total.max() <= 1:
        run = _run_to_the_right(columns, names, place, total)
        if run:
            return list(names[start:run])
        start -= 1
        before = _hot(columns[names[start]]) if start >= 0 else None
        total = None if before is None else total + before
    return []


def _run_to_the_right(columns: Mapping[str, np.ndarray], names: Sequence[str], place: int, total: np.ndarray) -> int:
    """Where a one-hot run ends that begins at or before `place`; total: (n,) ones up to there. 0 if there is none."""
    end = place + 1
    while total.max() <= 1:
        if total.min() == 1:
            return end
        following = _hot(columns[names[end]]) if end < len(names) else None
        if following is None:
            break
        total, end = total + following, end + 1
    return 0


def _complete(columns: Sequence[np.ndarray]) -> bool:
    """Whether these are several columns of which one is hot in each row."""
    hot = [found for found in map(_hot, columns) if found is not None]
    return 1 < len(hot) == len(columns) and bool((np.sum(hot, axis=0) == 1).all())


def _hot(cells: np.ndarray) -> np.ndarray | None:
    """(n,) 1 where a column of two values has the larger one, else 0; None for any other column."""
    if len(set(map(str, cells[:1000]))) > 2:  # decides most columns at once
        return None
    values = cells if cells.dtype.kind in "biuf" else np.array([str(cell).strip() for cell in cells])
    distinct = np.unique(values)
    return (values == distinct[1]).astype(np.int64) if len(distinct) == 2 else None
