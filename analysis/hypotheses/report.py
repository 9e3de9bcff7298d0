"""Writes the report of a test of the hypotheses: `python -P -m analysis.hypotheses DIR`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.hypotheses.figures import write_figures
from analysis.hypotheses.sentences import summary
from analysis.hypotheses.tables import (
    comparison,
    direction_table,
    distance_table,
    effect_table,
    load,
    per_seed,
    shift_table,
)  # fmt: skip
from analysis.tables.report_tables import write_tables
from unlearn_core.checks import InputError


def build(folder: Path) -> str:
    """Writes `folder`/report with tables and figures; returns the text for the terminal."""
    measured = load(folder)
    tables = {
        "shift": shift_table(measured.rows),
        "shift_tests": comparison(per_seed(measured.rows, "l1", at=1)),
        "distance": distance_table(measured.rows),
        "direction": direction_table(measured.rows),
        "effect": effect_table(measured.rows),
    }
    try:
        write_tables(tables, folder / "report" / "tables")
        write_figures(measured.rows, folder / "report" / "figures")
    except OSError as problem:
        raise InputError(f"the report cannot be written to {folder / 'report'}: {problem}") from problem
    return summary(tables, measured.facts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns 0, or 2 with one message on stderr."""
    parser = argparse.ArgumentParser(prog="python -P -m analysis.hypotheses", description=__doc__)
    parser.add_argument("folder", metavar="DIR", type=Path, help="results folder of one test (OUT/<name>)")
    given = parser.parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    try:
        print(build(given.folder))
    except InputError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print(f"\nreport: {given.folder / 'report'}")
    return 0
