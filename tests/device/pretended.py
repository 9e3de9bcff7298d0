"""A GPU that is not there: tensors that say `cuda:0` and are computed on the CPU.

`with PretendedDevice() as gpu:` makes `torch.device("cuda")` usable on a machine without one. What is moved there is a
wrapper whose device, asked from Python, is cuda:0; in C++ it belongs to a backend of its own, so that autograd, NumPy
and the like treat it as foreign. Every operation on it is looked at and then run on the CPU tensor inside:

- one that mixes devices raises, as on CUDA, and so does a generator of the wrong device;
- waits of the host, kernels and bytes are counted in `gpu.ledger`;
- `torch.autocast("cuda")` goes by CUDA's rules (`casts`);
- `gpu.break_down()` and `gpu.ledger.limit` give errors of the device and of its memory.

It knows nothing of CUDA's random streams, atomics, allocator, libraries, asynchronous errors and speed. It rests on
torch's experimental `_setup_privateuseone_for_python_backend`, so it is known to work with the torch in TRIED_WITH
alone, and the backend stays for the rest of the process: use it in a process of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import torch
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import (
    TorchDispatchMode,
    _get_current_dispatch_mode_stack,
    return_and_correct_aliasing,
)

from tests.device import casts, rules
from tests.device.casts import BACKEND
from tests.device.ledger import Ledger

TRIED_WITH = "2.15.0"
CUDA, CPU = torch.device("cuda:0"), torch.device("cpu")
TOTAL_MEMORY = 80 * 2**30  # bytes that the device says it has
BROKEN = "CUDA error: an illegal memory access was encountered (pretended)"
Result = Any


class DeviceTensor(torch.Tensor):
    """A tensor on the pretended device. held: the CPU tensor that it is."""

    held: torch.Tensor
    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> DeviceTensor:
        return torch.Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            layout=held.layout,
            device=torch.device(BACKEND, 0),
        )

    def __init__(self, held: torch.Tensor) -> None:
        self.held = held

    def __repr__(self, **_: Any) -> str:
        return f"cuda({self.held!r})"

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """Makes Module.to exchange parameters: without it, it sets `.data`, which keeps the old device."""
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(inner: dict[str, torch.Tensor], *_: Any) -> DeviceTensor:
        return DeviceTensor(inner["held"])

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __array__(self, dtype: Any = None) -> Any:
        return self.numpy()

    def __deepcopy__(self, memo: dict[int, Any]) -> DeviceTensor:
        if id(self) not in memo:
            copied = self.detach().clone().requires_grad_(self.requires_grad)
            if isinstance(self, torch.nn.Parameter):
                copied._is_param = True
            memo[id(self)] = copied
        return memo[id(self)]

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    @classmethod
    def __torch_dispatch__(cls, operation: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Result:
        return PretendedDevice.current[-1].run(operation, args, kwargs or {})


class Generator(torch.Generator):
    """Takes the place of torch.Generator: says which device it is for. All draw on the CPU, so their numbers are not
    CUDA's."""

    def __new__(cls, device: Any = "cpu") -> Generator:
        return super().__new__(cls, device="cpu")

    def __init__(self, device: Any = "cpu") -> None:
        self._for = torch.device(device)

    @property
    def device(self) -> torch.device:
        return self._for


class MixedDevicesError(RuntimeError):
    """What CUDA raises when it is given what is on the CPU, or the other way round."""


class _Functions(TorchFunctionMode):
    """Looks at generators, whose class the dispatcher does not keep, and says `cuda` in the words of the dispatcher."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(kwargs.get("generator"), Generator):
            _check_generator(kwargs["generator"], args, kwargs)
        if function is torch.Tensor.cuda:
            function, args = torch.Tensor.to, (args[0], CUDA)
        moves = function is torch.Tensor.to and len(args) > 1 and isinstance(args[1], str)
        if moves:
            args = (args[0], torch.device(args[1]), *args[2:])
        if isinstance(kwargs.get("device"), str):
            kwargs = {**kwargs, "device": torch.device(kwargs["device"])}
        args, kwargs = rules.mapped(_to_backend, (args, kwargs))
        stack = _get_current_dispatch_mode_stack()
        if any(isinstance(mode, _Operations) for mode in stack):
            return function(*args, **kwargs)
        with _Operations(PretendedDevice.current[-1]):  # switched off, as the project does to count no FLOPs
            return function(*args, **kwargs)


def _check_generator(generator: Generator, args: Any, kwargs: Any) -> None:
    tensors = rules.tensors_in(args)
    target = kwargs.get("device") or (tensors[0].device if tensors else CPU)
    if on_device(target) != on_device(generator.device):
        wanted, found = ("cuda" if on_device(x) else "cpu" for x in (target, generator.device))
        raise MixedDevicesError(f"Expected a '{wanted}' device type for generator but found '{found}'")


def _to_backend(value: Any) -> Any:
    return torch.device(BACKEND, 0) if isinstance(value, torch.device) and value.type == "cuda" else value


def _to_cpu(value: Any) -> Any:
    """The CPU tensor of a tensor of the device; the CPU for the device itself."""
    if isinstance(value, DeviceTensor):
        return value.held
    return CPU if isinstance(value, torch.device) and on_device(value) else value


def on_device(device: Any) -> bool:
    return device is not None and torch.device(device).type in ("cuda", BACKEND)


class _Operations(TorchDispatchMode):
    """Sees what makes tensors on the device from nothing."""

    def __init__(self, device: PretendedDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, operation: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Result:
        return self.device.run(operation, args, kwargs or {})


class PretendedDevice(contextlib.ExitStack):
    """See above."""

    current: list[PretendedDevice] = []  # noqa: RUF012 - the innermost, for its tensors

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()
        self._is_broken = False

    def __enter__(self) -> PretendedDevice:
        super().__enter__()
        _install_backend()
        self.current.append(self)
        self.callback(self.current.pop)
        for owner, name, value in self._replacements():
            self.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)
        self.callback(torch._C._set_only_lift_cpu_tensors, torch._C._only_lift_cpu_tensors())
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) is made on the CPU, then moved
        self.enter_context(_Functions())
        self.enter_context(_Operations(self))
        return self

    def break_down(self) -> None:
        """From now on every operation fails, as on CUDA after an error of the device itself."""
        self._is_broken = True

    def _replacements(self) -> Iterator[tuple[Any, str, Any]]:
        ledger = self.ledger
        properties = SimpleNamespace(total_memory=TOTAL_MEMORY, name="pretended", major=9, minor=0)
        functions: dict[str, Callable[..., Any]] = {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "_lazy_init": lambda: None,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "get_device_name": lambda *_: properties.name,
            "get_device_properties": lambda *_: properties,
            "is_bf16_supported": lambda *_: True,
            "is_current_stream_capturing": lambda: False,
            "synchronize": lambda *_: ledger.note("synchronize"),
            "empty_cache": lambda: None,
            "memory_allocated": lambda *_: ledger.alive,
            "max_memory_allocated": lambda *_: ledger.peak,
            "max_memory_reserved": lambda *_: ledger.peak,
            "reset_peak_memory_stats": lambda *_: setattr(ledger, "peak", ledger.alive),
            "set_per_process_memory_fraction": lambda share, *_: setattr(ledger, "limit", int(share * TOTAL_MEMORY)),
        }
        yield from ((torch.cuda, name, function) for name, function in functions.items())
        yield torch, "Generator", Generator
        yield torch, "autocast", casts.Autocast

    def run(self, operation: OpOverload, args: Any, kwargs: dict[str, Any]) -> Result:
        """An operation that may concern the device."""
        tensors = rules.tensors_in((args, kwargs))
        here = any(isinstance(x, DeviceTensor) for x in tensors)
        name = rules.packet(operation)
        if self._is_broken and (here or on_device(kwargs.get("device"))):
            raise torch.AcceleratorError(BROKEN)
        if name in ("aten._to_copy", "aten.copy_"):
            return self._copy(operation, args, kwargs)
        if here and (operation.namespace != "aten" or operation._can_decompose()):
            return self._take_apart(operation, args, kwargs)
        if not here and not on_device(kwargs.get("device")):
            return operation(*args, **kwargs)
        return self._compute(operation, args, kwargs, here=here)

    def _take_apart(self, operation: OpOverload, args: Any, kwargs: dict[str, Any]) -> Result:
        """An operation made of others, which are seen one by one."""
        if operation.namespace == "aten":
            with _Operations(self):
                return operation.decompose(*args, **kwargs)
        from unlearn_core.models.token_noise import _noise  # the one operation of the project

        assert rules.packet(operation) == "unlearn_core.embedding_noise", operation
        with _Functions(), _Operations(self):
            return _noise(*args, **kwargs)

    def _compute(self, operation: OpOverload, args: Any, kwargs: dict[str, Any], *, here: bool) -> Result:
        refusal = rules.refusal(operation, args, kwargs, DeviceTensor)
        if refusal is not None:
            raise MixedDevicesError(f"{refusal} ({operation})")
        for _ in range(rules.copied_indices(operation, args, DeviceTensor)):
            self.ledger.note("index to device")
        kind = rules.wait(operation, args, kwargs)
        if kind is not None:
            self.ledger.note(kind)
        leaves = kwargs.get("device") is not None and not on_device(kwargs["device"])  # x.new_zeros(..., device="cpu")
        inner_args, inner_kwargs = rules.mapped(_to_cpu, (args, kwargs))
        result = operation(*inner_args, **inner_kwargs)
        if leaves:
            return result
        result = rules.mapped(self._wrapped, result)
        if rules.launches(operation):
            self.ledger.launch(rules.tensors_in((args, kwargs, result)))
        return return_and_correct_aliasing(operation, args, kwargs, result) if here else result

    def _wrapped(self, value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or isinstance(value, DeviceTensor):
            return value
        if torch._is_zerotensor(value):  # of forward-mode differentiation; has no memory
            value = torch.zeros(value.shape, dtype=value.dtype)
        self.ledger.keep(value)
        return DeviceTensor(value)

    def _copy(self, operation: OpOverload, args: Any, kwargs: dict[str, Any]) -> Result:
        """Moves and changes of type. Those between host and device are waits."""
        in_place = rules.packet(operation) == "aten.copy_"
        target, source = (args[0], args[1]) if in_place else (kwargs.get("device") or args[0].device, args[0])
        goes_to = isinstance(target, DeviceTensor) if in_place else on_device(target)
        comes_from = isinstance(source, DeviceTensor)
        is_shape = torch.device("meta") in (getattr(target, "device", target), source.device)
        if goes_to != comes_from and not is_shape:
            self.ledger.note("to device" if goes_to else "to host")
        inner_args, inner_kwargs = rules.mapped(_to_cpu, (args, kwargs))
        result = operation(*inner_args, **inner_kwargs)
        if goes_to or comes_from:
            self.ledger.launch(rules.tensors_in([inner_args, result]))
        if in_place:
            return target
        return self._wrapped(result) if goes_to else result


class _Backend:
    """What torch asks of a backend."""

    is_available = is_initialized = staticmethod(lambda: True)
    _is_in_bad_fork = staticmethod(lambda: False)
    current_device = staticmethod(lambda: 0)
    device_count = staticmethod(lambda: 1)
    manual_seed_all = staticmethod(lambda seed: None)
    get_amp_supported_dtype = staticmethod(lambda: list(casts.HALVES))


_installed: list[Any] = []


def _install_backend() -> None:
    """Once in a process."""
    if _installed:
        return
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend  # a later torch may lack it

    _setup_privateuseone_for_python_backend(rename=BACKEND, backend_module=_Backend())
    _installed.extend(casts.install())
