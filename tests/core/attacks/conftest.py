"""Data for attacks that need more rows of a class than the shared digits have."""

import pytest

from unlearn_core.datasets import Digits, load_dataset


@pytest.fixture(scope="session")
def all_digits():
    """1,200 training rows and 398 test rows of real 16x16 images; read-only."""
    return load_dataset(Digits(size=16), data_root=None)
