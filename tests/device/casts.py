"""`torch.autocast("cuda")` on a pretended device: by CUDA's lists of operations, which torch's own header holds."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch._ops import OpOverload

from tests.device.rules import mapped, tensors_in

BACKEND = "pretended"  # what torch calls the type of the device
KEY = "AutocastPrivateUse1"
HEADER = "include/ATen/autocast_mode.h"
HALVES = (torch.bfloat16, torch.float16)
Operation = Callable[..., Any]


class Cast(NamedTuple):
    """A float32 leaf in another type, kept until the outermost autocast ends."""

    source: weakref.ref[torch.Tensor]
    made: torch.Tensor


_casts: dict[int, Cast] = {}
_autocast = torch.amp.autocast_mode.autocast  # as it is before a device takes its place


class Autocast(_autocast):  # type: ignore[misc,valid-type]
    """Takes the place of torch.autocast: `cuda` means the pretended device."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__(BACKEND if device_type == "cuda" else device_type, *args, **kwargs)

    def __exit__(self, *problem: Any) -> Any:
        result = super().__exit__(*problem)
        if not torch.is_autocast_enabled(BACKEND):
            _casts.clear()
        return result


def install() -> list[torch.library.Library]:
    """Give the backend CUDA's rules, for this process. They hold as long as what is returned lives."""
    others, rules = (torch.library.Library(name, "IMPL", KEY) for name in ("_", "aten"))
    others.fallback(torch.library.fallthrough_kernel)
    makers = {
        "AT_FORALL_LOWER_PRECISION_FP": _in_half,
        "AT_FORALL_FP32": _in_float32,
        "AT_FORALL_FP32_SET_OPT_DTYPE": _to_float32,
        "AT_FORALL_PROMOTE": _in_widest,
    }
    header = (Path(torch.__path__[0]) / HEADER).read_text()
    for block, make in makers.items():
        for name, operation in _operations(header, block):
            rules.impl(name, make(operation))
    return [others, rules]


def _operations(header: str, block: str) -> list[tuple[str, OpOverload]]:
    """The operations that a macro of the header lists; those that a dispatcher never sees are left out."""
    listed = header.split(f"#define {block}(_)")[1].split("#define ")[0]
    found = []
    for name, overload in re.findall(r"_\((\w+)(?:,\s*(\w+))?\)", listed):
        operation = getattr(getattr(torch.ops.aten, name, None), overload or "default", None)
        if operation is not None:
            found.append((f"{name}.{overload}" if overload else name, operation))
    return found


def _uncast(operation: OpOverload, args: Any, kwargs: Any) -> Any:
    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, KEY))):
        return operation(*args, **kwargs)


def _with(operation: OpOverload, dtype: torch.dtype, args: Any, kwargs: Any) -> Any:
    """The operation on its floating-point tensors in this type."""
    with torch._C._ExcludeDispatchKeyGuard(torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, KEY))):
        args, kwargs = mapped(lambda x: _cast(x, dtype), (args, kwargs))
        return operation(*args, **kwargs)


def _in_half(operation: OpOverload) -> Operation:
    return lambda *args, **kwargs: _with(operation, torch.get_autocast_dtype(BACKEND), args, kwargs)


def _in_float32(operation: OpOverload) -> Operation:
    return lambda *args, **kwargs: _with(operation, torch.float32, args, kwargs)


def _in_widest(operation: OpOverload) -> Operation:
    """In float32 if any argument is that."""

    def run(*args: Any, **kwargs: Any) -> Any:
        wide = any(x.dtype == torch.float32 for x in tensors_in((args, kwargs)))
        return _with(operation, torch.float32, args, kwargs) if wide else _uncast(operation, args, kwargs)

    return run


def _to_float32(operation: OpOverload) -> Operation:
    """With a float32 result, unless the caller asks for a type."""
    at = [argument.name for argument in operation._schema.arguments].index("dtype")

    def run(*args: Any, **kwargs: Any) -> Any:
        asked = kwargs.get("dtype") is not None or (len(args) > at and args[at] is not None)
        if args[0].dtype in HALVES and not asked:
            args, kwargs = args[:at], {**kwargs, "dtype": torch.float32}
        return _uncast(operation, args, kwargs)

    return run


def _cast(x: Any, dtype: torch.dtype) -> Any:
    """`x` in this type if it is a floating-point tensor of the device other than float64; weights are cast once."""
    if not (isinstance(x, torch.Tensor) and x.is_floating_point()) or x.dtype in (dtype, torch.float64):
        return x
    if x.device.type == "cpu":
        return x
    is_weight = x.is_cuda and x.requires_grad and x.is_leaf and x.dtype == torch.float32 and not x._is_view()
    if not (is_weight and torch.is_autocast_cache_enabled()):
        return x.to(dtype)
    found = _casts.get(id(x))
    if found is None or found.source() is not x:
        found = _casts[id(x)] = Cast(weakref.ref(x), x.to(dtype))
    return found.made
