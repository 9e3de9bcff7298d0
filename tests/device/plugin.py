"""`pytest -p tests.device.plugin`: tests marked `gpu`, and those that ask for `gpu`, get a pretended device."""

from collections.abc import Iterator

import pytest
import torch

from tests.device.pretended import PretendedDevice

torch.cuda.is_available = lambda: True  # for the conditions under which tests skip themselves


@pytest.fixture
def gpu() -> Iterator[PretendedDevice]:
    """A device on which nothing has been done."""
    with PretendedDevice() as device:
        yield device


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    if item.get_closest_marker("gpu") is None:
        return (yield)
    with PretendedDevice():
        return (yield)
