"""Rebuilds every table, figure and the page from the records alone: `python -P -m analysis.report DIR`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from unlearn_core.checks import InputError
from unlearn_core.host.output import run as run_command
from unlearn_core.host.parser import Parser
from unlearn_core.host.private import private_files

if TYPE_CHECKING:
    from analysis.results.analyse import Results

DESCRIPTION = "Make tables, figures and report again from the records."


class Report(NamedTuple):
    """What `build_report` made."""

    path: Path  # index.html
    text: str  # tables and verdicts for the terminal
    results: Results


def build_report(
    folder: str | Path,
    *,
    axis: str = "flops",
    tolerance: float | None = None,
    out: str | Path | None = None,
    show: Sequence[str] = (),
) -> Report:
    """Read `folder`, compute everything, write `index.html`, `tables/` and `figures/`.

    Args:
        folder: Results folder of one sweep, with records.parquet or part files.
        axis: Flops, seconds or passes: cost of the static figures and the hypervolume.
        tolerance: Largest utility gap that may win; by default the sweep's own.
        out: Folder to write into, by default `folder`/report.
        show: The attacks that figures, page and text show, see `results.analyse`.

    Raises:
        InputError: With one sentence for the user.
    """
    from analysis.figures.panels import write_figures  # with pandas and matplotlib, which take seconds to load
    from analysis.pages.page import render
    from analysis.pages.summary import summary
    from analysis.reading.load import load_sweep
    from analysis.results.analyse import analyse
    from analysis.tables.report_tables import all_tables, write_tables

    results = analyse(load_sweep(folder), axis=axis, tolerance=tolerance, show=show)
    target = Path(out) if out is not None else Path(folder) / "report"
    tables = all_tables(results)
    try:
        write_tables(tables, target / "tables")
        figures = write_figures(results, target / "figures")
        path = target / "index.html"
        page = render(results, tables=tables, figures=figures)
        path.write_text(page, encoding="utf-8", errors="backslashreplace")  # names of classes need not be Unicode
    except OSError as problem:
        raise InputError(f"the report cannot be written to {str(target)!r}: {problem}") from problem
    return Report(path, summary(results), results)


def main(arguments: Sequence[str] | None = None, prog: str = "python -P -m analysis.report") -> int:
    """Command line; returns 0, or 2 with one message on stderr when there is nothing to report."""
    parser = Parser(prog, DESCRIPTION, f"{prog} results/quick --budget-axis seconds")
    parser.add_argument("folder", metavar="DIR", help="results folder of one sweep (OUT/<sweep name>)")
    parser.add_argument(
        "--budget-axis", default="flops", metavar="AXIS", help="cost to draw fronts against: flops, seconds or passes"
    )
    parser.add_argument("--tolerance", type=float, help="largest utility gap that may win (default: the sweep's own)")
    parser.add_argument(
        "--show", nargs="+", default=[], metavar="ATTACK", help="attacks to show (default: the first ones)"
    )
    parser.add_argument("--out", help="folder to write into (default: DIR/report)")
    given = parser.parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a terminal without "±" must not end the report
    try:
        with private_files():
            report = build_report(
                given.folder, axis=given.budget_axis, tolerance=given.tolerance, out=given.out, show=given.show
            )
    except InputError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    print(report.text)
    print(f"\nreport: {report.path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
