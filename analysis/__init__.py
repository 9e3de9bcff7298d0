"""What a results folder says: `import analysis; r = analysis.load("results/quick")`.

The rooms: `statistics` < `reading` < `results` < `figures` < `tables` < `pages`, `hypotheses`, `scan`. Importing this
package loads none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.notebook import SweepResults, load

__all__ = ["SweepResults", "load"]


def __getattr__(name: str) -> Any:
    """The names of `__all__`, imported at their first use."""
    if name not in __all__:
        raise AttributeError(f"module 'analysis' has no attribute {name!r}; it has {', '.join(__all__)}")
    from analysis import notebook

    return getattr(notebook, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
