"""Results as a piece of HTML that a notebook shows: verdicts, and a grid of efficacies per attack."""

from __future__ import annotations

from analysis.pages.page import KINDS, environment
from analysis.results.analyse import Results
from analysis.tables.report_tables import grid_text


def as_html(results: Results) -> str:
    """Verdicts, remarks, and a table of methods and budgets for each attack that is shown; names are escaped."""
    return (
        environment()
        .get_template("notebook.html")
        .render(
            results=results,
            kinds=KINDS,
            grids={attack: grid_text(results, attack) for attack in results.shown},
        )
    )
