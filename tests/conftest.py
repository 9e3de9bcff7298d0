"""Shared by all tests: one thread, and the embedded digits."""

import pytest
import torch

from unlearn_core.datasets import Digits, load_dataset


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits():
    """400 training rows of real 16x16 images; read-only."""
    return load_dataset(Digits(size=16), data_root=None, train_rows=400, held_out_rows=150)
