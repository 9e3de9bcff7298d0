"""Collects what the gates measured and prints it after the tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

ROWS = pytest.StashKey[list[tuple[str, str, float, float, str]]]()
Note = Callable[[str, str, float, float, str], None]
"""(attack, metric, of the corrupted model, of the oracle, what is asked)."""


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Takes down the values of one gate."""
    rows = request.config.stash.setdefault(ROWS, [])
    return lambda *row: rows.append(row)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = terminalreporter.config.stash.get(ROWS, [])
    if rows:
        terminalreporter.section("gates")
        terminalreporter.write_line(f"{'attack':<24}{'metric':<22}{'corrupted':>10}{'oracle':>10}  asked")
    for attack, metric, corrupted, oracle, asked in rows:
        terminalreporter.write_line(f"{attack:<24}{metric:<22}{corrupted:>10.3g}{oracle:>10.3g}  {asked}")
