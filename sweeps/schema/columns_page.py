"""Writes `docs/records.md`, the page of all columns, from the classes: `python -P -m sweeps.schema.columns_page`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from pathlib import Path

from sweeps.schema.columns import Column
from sweeps.schema.hypotheses import HYPOTHESIS_COLUMNS, HYPOTHESIS_MEASURES
from sweeps.schema.records import DERIVED_COLUMNS, RUNG_COLUMNS, TRIAL_COLUMNS

PAGE = Path(__file__).parents[2] / "docs" / "records.md"
PARQUET = {str: "string", int: "int64", float: "double", bool: "bool"}
"""Names of the types in Parquet files."""
INTRODUCTION = """\
# Columns of the results

*Made by `python -P -m sweeps.schema.columns_page` from the classes in `sweeps/schema/`: change the text there.*

`records.parquet` has one row per trial and budget. A row holds the columns of its trial, those of the rung (what the
trial spent within one budget, and how good the model was then), those that follow from both, and one column per metric.
A failed trial has one row without a budget. The part files under `records/` hold a trial per line, as JSON, with its
rungs in a list.
"""
METRICS = """\
## Metrics

Besides these, there is one column of numbers (`double`) per metric, empty where a metric does not apply.
`.venv/bin/unlearn list metrics` names them all; [metrics.md](metrics.md) says where they come from. A
[bundle](bundles.md) also has `<part>.<metric>`, `<part>.removal` and `<part>.efficacy` for each part.
"""


def page() -> str:
    """The text of the page."""
    sections = [
        INTRODUCTION,
        "## Of a trial\n\n" + columns_table(TRIAL_COLUMNS),
        "## Of a rung\n\n" + columns_table(RUNG_COLUMNS),
        "## Derived\n\n" + columns_table(DERIVED_COLUMNS),
        METRICS,
        "## Of `hypotheses.parquet`\n\n" + columns_table(HYPOTHESIS_COLUMNS),
        table(("Measure", "Meaning"), ((f"`{name}`", text) for name, text in HYPOTHESIS_MEASURES.items())),
    ]
    return "\n".join(sections)


def columns_table(columns: Mapping[str, Column]) -> str:
    """Name, meaning, unit and type of columns, as a Markdown table."""
    rows = ((f"`{name}`", one.meaning, one.unit, PARQUET[one.kind]) for name, one in columns.items())
    return table(("Column", "Meaning", "Unit", "Type"), rows)


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table, with a line end."""
    lines = (head, ("---",) * len(head), *rows)
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__).parse_args()  # --help writes nothing
    PAGE.write_text(page(), encoding="utf-8")
