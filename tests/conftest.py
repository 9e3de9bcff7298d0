"""Shared by all tests: one thread, the embedded digits, small and read-only disks, and one token for every Ray of this
process."""

import gc
import os
import secrets
import signal

import pytest
import torch
from hypothesis import settings

from tests.disks import read_only, small_disk
from unlearn_core.datasets import Digits, load_dataset

__all__ = ["digits", "one_thread", "read_only", "small_disk"]

# Ray reads these once, when it is imported, which some tests do long before others start one.
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))

# Shells start jobs in the background with Ctrl-C ignored, and their children inherit that: tests send it to some.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Hypothesis' own profile for CI tries 100 examples, the same in every run. No test fails for being slow.
settings.register_profile("few", max_examples=25, deadline=None)
settings.load_profile("ci" if "CI" in os.environ else "few")


SLOW = ("ray", "browser")
"""What starts a Ray or a browser is slow, marked or not."""


@pytest.hookimpl(tryfirst=True)  # before the selection by marks
def pytest_collection_modifyitems(items):
    for item in items:
        if any(map(item.get_closest_marker, SLOW)):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("ray"):
            item.add_marker(pytest.mark.xdist_group("ray"))  # two of them side by side would share two processors


def pytest_collection_finish():
    """Thousands of tests and their libraries live to the end: no collection has to look through them again."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    gc.unfreeze()  # or libraries call what is alive at the end a leak


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits():
    """400 training rows of real 16x16 images; read-only."""
    return load_dataset(Digits(size=16), data_root=None, train_rows=400, held_out_rows=150)
