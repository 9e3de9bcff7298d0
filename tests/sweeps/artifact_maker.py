"""One small artifact, and a count of how often it was made."""

from __future__ import annotations

import torch

from sweeps.storage.artifacts import Artifact

RECIPE = {"rows": [1, 2], "lr": 0.1}

CONTENT = {"flops": 123456789, "seconds": 0.1}


class Maker:
    """Makes the same artifact every time, and counts."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Artifact:
        self.calls += 1
        turned = torch.arange(6.0).view(2, 3).T  # not contiguous
        return Artifact({"w": turned, "b": torch.tensor([1, 2])}, dict(CONTENT))


def same(one: Artifact, other: Artifact) -> bool:
    equal = [torch.equal(tensor, other.tensors[name]) for name, tensor in one.tensors.items()]
    return one.tensors.keys() == other.tensors.keys() and all(equal) and one.meta == other.meta
