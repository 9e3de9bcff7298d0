"""Settings under which CUDA gives the same numbers again, as far as torch offers it; see docs/devices.md."""

from __future__ import annotations

import os

import torch


def make_repeatable() -> None:
    """For this process, before its first product of matrices on CUDA.

    Where an operation has no repeatable implementation torch warns; it does not fail, as a seed differs from the
    next by more.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # only shows reads of memory that nobody wrote
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
