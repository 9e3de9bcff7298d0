"""What CUDA does with an operation: whether it launches a kernel, whether the host waits, which devices it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._ops import OpOverload

Ops = torch.ops.aten
Arguments = Sequence[Any]
MASKS = (torch.bool, torch.uint8)  # types of an index whose shape is known only once the device has counted
INDEXING = {"aten.index", "aten._unsafe_index", "aten.index_put", "aten.index_put_", "aten._index_put_impl_"}
SAME = "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
INDEX_ON_CPU = "indices should be either on cpu or on the same device as the indexed tensor (cpu)"
LAUNCH_NOTHING = {
    f"aten.{name}"
    for name in (
        "_local_scalar_dense _reshape_alias _unsafe_view alias as_strided detach diagonal empty empty_like "
        "empty_strided expand is_same_size lift_fresh movedim new_empty new_empty_strided permute select slice split "
        "split_with_sizes squeeze t transpose unbind unfold unsqueeze view view_as_real"
    ).split()
}
"""Views, and questions about shapes."""
WAITS = {
    "aten.nonzero": "nonzero",
    "aten.masked_select": "masked_select",
    "aten._unique": "unique",
    "aten._unique2": "unique",
    "aten.unique_dim": "unique",
    "aten.unique_consecutive": "unique",
    "aten.bincount": "bincount",
    "aten.histc": "histc",
    "aten.equal": "equal",
    "aten.is_nonzero": "item",
    "aten._local_scalar_dense": "item",
    "aten._linalg_check_errors": "linalg check",
    "aten._linalg_eigh": "eigh",
    "aten._linalg_svd": "svd",
    "aten.linalg_lstsq": "lstsq",
}
"""Operations for which the host must have a number from the device before it can go on, by the kind of the wait."""
TAKE_NUMBERS = {Ops.fill_.Tensor, Ops.masked_fill.Tensor, Ops.masked_fill_.Tensor, Ops.where.self}
"""Besides pointwise operations: those that take a single number from the CPU."""


def packet(operation: OpOverload) -> str:
    """`aten.add` of `aten.add.Tensor`."""
    return str(operation.overloadpacket)


def launches(operation: OpOverload) -> bool:
    """Whether a kernel is launched."""
    return packet(operation) not in LAUNCH_NOTHING


def wait(operation: OpOverload, args: Arguments, kwargs: dict[str, Any]) -> str | None:
    """The kind of wait that the operation means for the host, or None."""
    name = packet(operation)
    if name in WAITS:
        return WAITS[name]
    if name in INDEXING and _has_mask(args[1]):
        reads = "put" not in name
        return "mask index" if reads else (None if _is_masked_fill(args) else "mask assignment")
    if name == "aten.repeat_interleave" and kwargs.get("output_size") is None:
        return "repeat_interleave"
    return None


def _has_mask(indices: Arguments) -> bool:
    return any(index is not None and index.dtype in MASKS for index in indices)


def _is_masked_fill(args: Arguments) -> bool:
    """`x[mask] = one number`, which torch turns into masked_fill_."""
    accumulate = len(args) > 3 and args[3]
    return len(args[1]) == 1 and args[2].numel() == 1 and not accumulate


def refusal(operation: OpOverload, args: Arguments, kwargs: dict[str, Any], on_device: type) -> str | None:
    """What CUDA says against these arguments, or None. on_device: the class of tensors that are on the device.

    From the CPU it takes single numbers in pointwise operations, and the indices of a tensor of its own.
    """
    name = packet(operation)
    if name in INDEXING:
        return _index_refusal(name, args, on_device)
    if name == "aten.linalg_lstsq" and kwargs.get("driver") not in (None, "gels"):
        return "torch.linalg.lstsq: parameter `driver` should be one of (gels)"
    tensors = tensors_in((args, kwargs))
    foreign = [x for x in tensors if not isinstance(x, on_device)]
    takes_numbers = torch.Tag.pointwise in operation.tags or operation in TAKE_NUMBERS or "_foreach_" in name
    if any(x.dim() > 0 for x in foreign) or (foreign and len(foreign) < len(tensors) and not takes_numbers):
        return SAME
    if foreign and len(foreign) < len(tensors) and operation._schema.is_mutable and foreign[0] is args[0]:
        return SAME  # the result of the device would have to be written to the CPU
    return None


def _index_refusal(name: str, args: Arguments, on_device: type) -> str | None:
    if not isinstance(args[0], on_device):
        return INDEX_ON_CPU
    put = "put" in name and not isinstance(args[2], on_device) and args[2].dim() > 0
    return SAME if put else None


def copied_indices(operation: OpOverload, args: Arguments, on_device: type) -> int:
    """How many index tensors have to be brought to the device first."""
    if packet(operation) not in INDEXING:
        return 0
    return sum(index is not None and not isinstance(index, on_device) for index in args[1])


def mapped(function: Callable[[Any], Any], values: Any) -> Any:
    """`function` of every value in nested tuples, lists and dicts; torch's own tree_map takes ten times as long."""
    if type(values) in (tuple, list):
        return type(values)([mapped(function, value) for value in values])
    if type(values) is dict:
        return {key: mapped(function, value) for key, value in values.items()}
    return function(values)


def tensors_in(values: Any) -> list[torch.Tensor]:
    """All tensors in nested tuples, lists and dicts."""
    if isinstance(values, torch.Tensor):
        return [values]
    if isinstance(values, dict):
        values = tuple(values.values())
    return [x for value in values for x in tensors_in(value)] if isinstance(values, tuple | list) else []
