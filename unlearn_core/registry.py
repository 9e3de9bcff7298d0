"""Names for everything that a configuration can select. A new entry is one file, one import and one test row."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from unlearn_core.checks import InputError, close_names

if TYPE_CHECKING:
    from unlearn_core.datasets.raw import Source
    from unlearn_core.metrics.family import Family
    from unlearn_core.models.building import ModelSettings
    from unlearn_core.types import Attack, Unlearner

T = TypeVar("T")


class Registry(Generic[T]):
    """Items of one kind, selectable by name."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorate a class or function to make it selectable by `name`."""

        def add(item: T) -> T:
            if name in self._items:
                raise InputError(f"{self.kind} {name!r} is already registered; choose another name")
            self._items[name] = item
            return item

        return add

    def get(self, name: str) -> T:
        """The item called `name`; an unknown name raises InputError with the nearest names."""
        if name not in self._items:
            raise InputError(f"{self.kind} {name!r} is unknown; {close_names(name, self._items)}")
        return self._items[name]

    def name_of(self, item: object) -> str:
        """The name that `item` is registered by; InputError if it is not."""
        for name, known in self._items.items():
            if known is item:
                return name
        raise InputError(f"{item!r} is not registered as {self.kind}; choose one of {', '.join(self.names())}")

    def names(self) -> list[str]:
        return sorted(self._items)

    def summary(self, name: str) -> str:
        """First line of the item's docstring, for listings."""
        return (inspect.getdoc(self.get(name)) or "").split("\n")[0]


DATASETS: Registry[type[Source]] = Registry("dataset")
MODELS: Registry[type[ModelSettings]] = Registry("model")
ATTACKS: Registry[type[Attack]] = Registry("attack")
UNLEARNERS: Registry[type[Unlearner]] = Registry("unlearner")
METRICS: Registry[Family] = Registry("metric")
