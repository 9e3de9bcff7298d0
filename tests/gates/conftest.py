"""Collects what the gates measured and prints it after the tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Note = Callable[[str, str, float, float, str], None]
"""(attack, metric, of the corrupted model, of the oracle, what is asked)."""
GATE = "gate"


@pytest.fixture
def note(request: pytest.FixtureRequest) -> Note:
    """Notes the values of one gate in the test's report, which reaches the terminal from parallel workers, too."""
    return lambda *row: request.node.user_properties.append((GATE, row))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [r for name in ("passed", "failed") for r in terminalreporter.stats.get(name, []) if r.when == "call"]
    rows = [row for report in reports for name, row in report.user_properties if name == GATE]
    if rows:
        terminalreporter.section("gates")
        terminalreporter.write_line(f"{'attack':<24}{'metric':<22}{'corrupted':>10}{'oracle':>10}  asked")
    for attack, metric, corrupted, oracle, asked in rows:
        terminalreporter.write_line(f"{attack:<24}{metric:<22}{corrupted:>10.3g}{oracle:>10.3g}  {asked}")
