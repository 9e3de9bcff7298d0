"""Shared by all tests: one thread, the embedded digits, small and read-only disks, and one token for every Ray of this
process."""

import os
import secrets
import signal

import pytest
import torch

from tests.disks import read_only, small_disk
from unlearn_core.datasets import Digits, load_dataset

__all__ = ["digits", "one_thread", "read_only", "small_disk"]

# Ray reads these once, when it is imported, which some tests do long before others start one.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

# Shells start jobs in the background with Ctrl-C ignored, and their children inherit that: tests send it to some.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits():
    """400 training rows of real 16x16 images; read-only."""
    return load_dataset(Digits(size=16), data_root=None, train_rows=400, held_out_rows=150)
