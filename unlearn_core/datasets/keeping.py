"""What sources make that takes long: kept by the one who loads them, who has files to keep it in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from unlearn_core.datasets.raw import Raw, Source

Tensors = dict[str, Tensor]
Keep = Callable[[Mapping[str, Any], Callable[[], Tensors]], Tensors]
"""Gives the tensors that a recipe makes: kept from before, or made now."""


def at_once(recipe: Mapping[str, Any], make: Callable[[], Tensors]) -> Tensors:
    """Keeps nothing."""
    return make()


@runtime_checkable
class Slow(Protocol):
    """A source that can keep what it makes."""

    @property
    def name(self) -> str: ...

    def load_kept(self, data_root: Path | None, *, download: bool, keep: Keep) -> Raw:
        """As `load`, of the same content."""
        ...


@dataclass(frozen=True)
class Kept:
    """A source that keeps what takes long to make; a Source."""

    source: Slow
    keep: Keep

    @property
    def name(self) -> str:
        return self.source.name

    def load(self, data_root: Path | None, *, download: bool = False) -> Raw:
        return self.source.load_kept(data_root, download=download, keep=self.keep)


def keeping(source: Source, keep: Keep) -> Source:
    """`source`, which asks `keep` for what takes long to make; most make nothing such."""
    return Kept(source, keep) if isinstance(source, Slow) else source
