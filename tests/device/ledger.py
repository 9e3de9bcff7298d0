"""What a pretended device keeps account of: waits of the host, kernels, and memory."""

from __future__ import annotations

import sys
import threading
import weakref
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import torch

ROOT = Path(__file__).parents[2]
PACKAGES = tuple(f"{ROOT / name}/" for name in ("unlearn_core", "sweeps"))


class Wait(NamedTuple):
    """kind: `item`, `nonzero`, `to host`, ...; place: the innermost line of the project, as `file:line`."""

    kind: str
    place: str

    def __str__(self) -> str:
        return f"{self.kind} at {self.place}"


@dataclass
class Ledger:
    """waits: how often the host waited, by kind and place. doubles: kernels on float64 numbers, by place. kernels: how
    many were launched. alive, peak: bytes in use. limit: bytes above which memory is out."""

    waits: Counter[Wait] = field(default_factory=Counter)
    doubles: Counter[str] = field(default_factory=Counter)
    kernels: int = 0
    alive: int = 0
    peak: int = 0
    limit: int | None = None
    _known: dict[int, weakref.ref[torch.UntypedStorage]] = field(default_factory=dict)

    def note(self, kind: str) -> None:
        self.waits[Wait(kind, place())] += 1

    def launch(self, numbers: list[torch.Tensor]) -> None:
        """A kernel on these tensors."""
        self.kernels += 1
        if any(x.dtype == torch.float64 and x.numel() for x in numbers):
            self.doubles[place()] += 1

    def forget_counts(self) -> None:
        """Start counting afresh; memory stays what it is."""
        self.waits.clear()
        self.doubles.clear()
        self.kernels = 0

    def keep(self, tensor: torch.Tensor) -> None:
        """Account for the memory of `tensor` until nothing holds it; OutOfMemoryError where there is not enough."""
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if size == 0 or key in self._known:
            return
        if self.limit is not None and self.alive + size > self.limit:
            raise torch.OutOfMemoryError(f"CUDA out of memory (pretended): {self.alive + size} of {self.limit} bytes")
        self._known[key] = weakref.ref(storage, lambda _: self._gone(key, size))
        tensor._storage_of_device = storage  # type: ignore[attr-defined]  # its Python object lives as long as it
        self.alive += size
        self.peak = max(self.peak, self.alive)

    def _gone(self, key: int, size: int) -> None:
        del self._known[key]
        self.alive -= size


def place() -> str:
    """The innermost line of the project that is being run, `backward` in the autograd engine's threads."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(PACKAGES):
            return f"{Path(name).relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back  # type: ignore[assignment]
    return "tests" if threading.current_thread() is threading.main_thread() else "backward"
