"""The last few values that a process made or read, up to a number of bytes."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from typing import Any, Generic, TypeVar

import numpy as np
from torch import Tensor, nn

T = TypeVar("T")
GIB = 2**30


class Recent(Generic[T]):
    """The last few values: at most `number` of them and, but for the last one, `room` bytes in all."""

    def __init__(self, number: int, room: int) -> None:
        self.number, self.room = number, room
        self._values: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Hashable) -> T | None:
        """The value, which now is the one used last; None if it is not remembered."""
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        return self._values[key][0]

    def put(self, key: Hashable, value: T, *, beside: object = None) -> None:
        """Remember a value.

        Args:
            key: What it is found by.
            value: Anything but None.
            beside: What is kept anyway, so that memory shared with it does not count.
        """
        shared = memory(beside)
        self._values[key] = value, sum(size for place, size in memory(value).items() if place not in shared)
        self._values.move_to_end(key)
        while len(self) > 1 and (len(self) > self.number or sum(size for _, size in self._values.values()) > self.room):
            self._values.popitem(last=False)

    def clear(self) -> None:
        self._values.clear()


def memory(value: Any) -> dict[tuple[str, int], int]:
    """Bytes of the tensors and arrays in a value, found in modules, dataclasses, mappings and sequences.

    Returns:
        Bytes by where they lie, so that memory which is shared counts once.
    """
    if isinstance(value, Tensor):
        storage = value.untyped_storage()
        return {(str(value.device), storage.data_ptr()): storage.nbytes()}
    if isinstance(value, np.ndarray):
        if isinstance(value.base, (Tensor, np.ndarray)):  # a view
            return memory(value.base)
        return {("numpy", value.__array_interface__["data"][0]): value.nbytes}
    found: dict[tuple[str, int], int] = {}
    for part in _parts(value):
        found |= memory(part)
    return found


def _parts(value: Any) -> list[Any]:
    if isinstance(value, nn.Module):
        return [*value.parameters(), *value.buffers()]
    if isinstance(value, Mapping):
        return list(value.values())
    if isinstance(value, (list, tuple)):
        return list(value)
    if dataclasses.is_dataclass(value):
        return list(vars(value).values())
    return []
