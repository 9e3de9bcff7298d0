"""The run that all faults are compared with, and the ledger of what they cost."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.faults.harness import Sweep, Undisturbed
from tests.faults.ledger import LEDGER


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption("--fault-table", type=Path, metavar="PATH", help="write what each fault cost to this JSON file")
    group.addoption("--fault-seed", type=int, metavar="N", help="of random moments (default: another in every run)")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--fault-table", default=None) and config.getoption("numprocesses", default=None):
        raise pytest.UsageError("--fault-table needs one process, which has all faults; leave -n out")


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--fault-table", default=None)
    if path:
        LEDGER.write(path)


@pytest.fixture(scope="session")
def fault_seed(request: pytest.FixtureRequest) -> int:
    given = request.config.getoption("--fault-seed", default=None)
    return secrets.randbelow(10**6) if given is None else int(given)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """Read it, never write to it."""
    run = Undisturbed(Sweep(tmp_path_factory.mktemp("faults") / "undisturbed", "--inline"))
    begun = run.begun()
    assert len(begun) == len(set(begun)) == len(run.sweep.trials()) - len(run.references)
    return run
