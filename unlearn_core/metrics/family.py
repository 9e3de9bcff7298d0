"""A family is a group of metric columns that reduce the same arrays; METRICS holds them by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Arrays = Mapping[str, np.ndarray]
OF_THE_WHOLE = ("test_", "retain_", "shift_", "from_", "relearn_")  # how names of arrays begin, after `oracle_`

COUPLED = (
    " (corrupted model and oracle share initialisation and order of the data, so that methods start nearer to the "
    "oracle than a second oracle, with others, ever comes: that one is no floor)"
)
"""End of the descriptions of metrics that compare with one particular oracle, and not with what oracles are like."""


@dataclass(frozen=True, kw_only=True)
class Family:
    """Metrics that are computed together.

    columns: column name -> one line: meaning, the value a model without poison has, and the direction.
    needs: names of the arrays that `compute` reads; it is given no others.
    compute: reduces the arrays to one float per column. Raises ValueError on invalid arrays; a value is NaN only
        where its column says that it is undefined. Its docstring is the family's.
    """

    columns: dict[str, str]
    needs: tuple[str, ...]
    compute: Callable[[Arrays], dict[str, float]]

    def __post_init__(self) -> None:
        # Listings show an item's docstring; without this every family would show the one of this class.
        object.__setattr__(self, "__doc__", self.compute.__doc__)

    @property
    def reads_poisons(self) -> bool:
        """Whether it looks at particular poisons or at what they do to probes, and not only at the model as a whole."""
        return any(not name.removeprefix("oracle_").startswith(OF_THE_WHOLE) for name in self.needs)

    def __call__(self, arrays: Arrays) -> dict[str, float]:
        """The family's columns, exactly those declared.

        Raises:
            ValueError: If an array is missing or invalid.
            RuntimeError: If `compute` breaks its declaration.
        """
        missing = [name for name in self.needs if name not in arrays]
        if missing:
            raise ValueError(f"arrays {missing} are missing; this family needs {list(self.needs)}")
        values = self.compute({name: arrays[name] for name in self.needs})
        if values.keys() != self.columns.keys():
            raise RuntimeError(f"declared columns {sorted(self.columns)}, but computed {sorted(values)}")
        return {column: float(values[column]) for column in self.columns}
