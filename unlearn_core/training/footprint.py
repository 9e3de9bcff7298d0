"""How many rows a model can be asked about at once, from the memory that one row takes."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

LIVE = 4  # results of the size of the largest one that are alive at once, such as scores, mask, softmax and its input
BYTES = 1 << 33  # 8 GiB, that one pass without gradients may take
SIZES: WeakKeyDictionary[nn.Module, dict[Any, int]] = WeakKeyDictionary()  # bytes of the largest result, by kind of row


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that an operation makes; views are none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            sizes = [leaf.numel() * leaf.element_size() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
            self.bytes = max(self.bytes, *sizes, 0)
        return result


def rows_that_fit(model: nn.Module, inputs: Tensor, most: int, limit: int = BYTES) -> int:
    """How many rows of `inputs` (n, *shape) one pass without gradients may take.

    At most `most`, and fewer where they would hold more than about `limit` bytes; at least one.

    The model, which is in evaluation mode, is asked about the first row; that is outside of any count of FLOPs.
    """
    if len(inputs) < 2:
        return most
    sizes = SIZES.setdefault(model, {})
    kind = inputs.shape[1:], inputs.dtype
    if kind not in sizes:
        with _disable_current_modes(), torch.no_grad(), Largest() as largest:
            model(inputs[:1])
        sizes[kind] = largest.bytes
    return max(1, min(most, limit // max(1, LIVE * sizes[kind])))
