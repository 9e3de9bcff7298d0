"""Independent random streams, each a pure function of a seed and a label: order of use never matters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


def derive(seed: int, *labels: str | int) -> int:
    """A 63-bit seed for the stream `labels` (without `|`) under the root `seed`; equal arguments give equal seeds."""
    text = "|".join([str(seed), *map(str, labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *labels: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """A generator on `device` seeded from `derive(seed, *labels)`."""
    return torch.Generator(device=device).manual_seed(derive(seed, *labels))


@contextmanager
def global_seed(seed: int) -> Iterator[None]:
    """Seed torch's global CPU stream for code that cannot take a generator; restore it afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class Streams:
    """The random streams of one run: one generator per concern (data order, noise, init, ...)."""

    seed: int
    device: torch.device

    def __call__(self, *labels: str | int) -> torch.Generator:
        return generator(self.seed, *labels, device=self.device)

    def on_cpu(self, *labels: str | int) -> torch.Generator:
        """The stream for what must not depend on the device: poisons, splits and whatever names rows.

        Other devices get the result, or draw it again.
        """
        return generator(self.seed, *labels)

    def permutation(self, count: int, *labels: str | int) -> torch.Tensor:
        """(count,) a random order, the same on every device."""
        return torch.randperm(count, generator=self.on_cpu(*labels)).to(self.device)
