"""Which errors are the device's and not the method's.

After an error of a device its context in this process is broken: whatever runs there next fails too. Errors of memory
come by more ways than `torch.OutOfMemoryError`, which torch's own allocator raises: libraries allocate for themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch

MEMORY = re.compile(
    r"(CUDA|HIP|XPU)( driver| kernel)? error: out of memory"
    r"|MPS backend out of memory"
    r"|STATUS_(INTERNAL_ERROR_(HOST|DEVICE)_)?ALLOC(ATION)?_FAILED"  # cuBLAS, cuDNN, cuSOLVER, hipBLAS, ...
    r"|CUFFT_ALLOC_FAILED|miopenStatusAllocFailed"
    r"|STATUS_NOT_INITIALIZED when calling `(cublas|hipblas|cusolverDn|cusparse)Create"  # no room for its workspace
    r"|OUT_OF_DEVICE_MEMORY|OUT_OF_HOST_MEMORY"  # XPU
)
BROKEN = re.compile(
    r"(CUBLAS|CUDNN|CUSOLVER|CUSPARSE|HIPBLAS)_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR|NOT_INITIALIZED)"
    r"|miopenStatus(InternalError|UnknownError)"
    r"|Triton Error \[(CUDA|HIP)\]|NCCL error"
    r"|(CUDA|HIP|XPU) (driver|unknown|kernel) error|device-side assert|UR_RESULT_ERROR_DEVICE_LOST"
    r"|No (CUDA|HIP|XPU) GPUs are available|Unexpected error from \w+GetDeviceCount"
)
"""Texts of plain RuntimeErrors; a library that refuses a wrong argument is not among them."""


def is_memory(problem: BaseException) -> bool:
    """Whether the device had no memory left, in whatever words."""
    return any(isinstance(one, torch.OutOfMemoryError) or _says(MEMORY, one) for one in _causes(problem))


def ends_process(problem: BaseException) -> bool:
    """Whether nothing more can be expected of the device in this process.

    Any error that is the device's, but for torch.OutOfMemoryError, after which the allocator goes on.
    """
    return any(
        isinstance(one, torch.AcceleratorError) or _says(MEMORY, one) or _says(BROKEN, one) for one in _causes(problem)
    )


def is_devices(problem: BaseException) -> bool:
    """Whether an error is none of the method's own doing, so that its record would be wrong."""
    return is_memory(problem) or ends_process(problem)


def _says(text: re.Pattern[str], problem: BaseException) -> bool:
    """Only RuntimeErrors, which torch and what it calls raise."""
    return isinstance(problem, RuntimeError) and text.search(str(problem)) is not None


def _causes(problem: BaseException) -> Iterator[BaseException]:
    """The error and those that it was raised from or in the handling of.

    A plug-in may have put it in its own words.

    Yields:
        Each error once.
    """
    seen: list[BaseException] = []
    left: list[BaseException | None] = [problem]
    while left:
        one = left.pop()
        if one is not None and one not in seen:
            seen.append(one)
            left += [one.__cause__, None if one.__suppress_context__ else one.__context__]
    yield from seen
