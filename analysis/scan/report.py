"""One setting against what it changes: `python -P -m analysis.scan DIR` reads the scan.json of a folder and its sweeps.

Writes `points.csv` (one row per value, attack, seed and model), `table.txt` and the figure `scan.png` (and .pdf) beside
it: the attack's metrics for corrupted model and oracles, and what the methods removed, against the varied setting.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.scan.figure import write_figure
from analysis.scan.scan import read_scan, table
from analysis.tables.report_tables import write_csv
from unlearn_core.checks import InputError


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns 0, or 2 with one message on stderr when there is nothing to show."""
    parser = argparse.ArgumentParser(prog="python -P -m analysis.scan", description=__doc__)
    parser.add_argument("folder", metavar="DIR", help="folder of a scan (OUT/<scan name>)", type=Path)
    folder = parser.parse_args(arguments).folder
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal without "±" must not end the report
    try:
        scan = read_scan(folder)
        text = table(scan)
        (folder / "table.txt").write_text(text + "\n", encoding="utf-8")
        write_csv(scan.points, folder / "points.csv")
        figure = write_figure(scan, folder / "scan")
    except (InputError, OSError) as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print(f"{text}\n\nfigure: {figure}")
    return 0
