"""One undisturbed run of the tiny sweep, shared by the tests that compare with it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest

from sweeps.config.spec import Sweep
from sweeps.storage.record_log import Trial
from tests.faults.feeding import feed
from tests.sweeps.tiny import run_fresh, tiny

__all__ = ["Done", "done", "feed"]


class Done(NamedTuple):
    """A finished sweep."""

    sweep: Sweep
    out: Path
    trials: list[Trial]

    @property
    def dir(self) -> Path:
        return self.out / self.sweep.name


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Read it, never write to it."""
    sweep, out = tiny(), tmp_path_factory.mktemp("done")
    return Done(sweep, out, run_fresh(sweep, out))


@pytest.fixture(autouse=True)
def _no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
