"""A report in words for the terminal: as short as the number of methods and attacks allows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from analysis.results.agreement import sentence
from analysis.results.analyse import Results
from analysis.results.plane import LARGEST_BUDGET, OURS, PLANE_REFERENCES, average_table
from analysis.results.verdict import Verdict, display, percent
from analysis.tables.report_tables import grid_text

LEGEND = (
    "efficacy ± half of its 95 % interval (utility gap); "
    "* best inside the tolerance and above 0.00, ! outside it, nF, nM = n seeds failed, missing"
)
MOST_ROWS, LEAST_ROWS = 40, 3
"""Methods shown over all attacks together, and for each attack at least."""
MOST_REMARKS, MOST_METRICS, MOST_ON_PLANE = 4, 5, 5


def summary(results: Results) -> str:
    """Notes, then each attack, then the plane. The page and the tables hold what is left out here."""
    parts = [f"note: {note}" for note in results.notes]
    most = max(LEAST_ROWS, MOST_ROWS // max(1, len(results.shown)))
    for judged in results.shown_verdicts:
        parts += ["", *_attack_lines(results, judged, most)]
    if len(results.shown) < len(results.verdicts):
        parts += ["", f"({len(results.shown)} of {len(results.verdicts)} attacks; all: tables/verdicts.csv)"]
    if len(results.points):
        parts += ["", LEGEND]
    return "\n".join([*parts, *_plane_lines(results)]).strip()


def _attack_lines(results: Results, judged: Verdict, most: int) -> list[str]:
    head, body = grid_text(results, judged.attack, most=most)
    lines = [f"== {judged.attack} ==", *(_aligned([head, *body]) if body else [])]
    if body and len(results.methods) > most:
        lines.append(f"(the best {most} of {len(results.methods)} methods; all: tables/results.csv)")
    lines += [f"verdict: {judged.text}", *(f"  - {remark}" for remark in judged.remarks[:MOST_REMARKS])]
    if len(judged.remarks) > MOST_REMARKS:
        lines.append(f"  - and {len(judged.remarks) - MOST_REMARKS} more remarks on the page")
    text = sentence(results.agreement, judged.attack, shown=MOST_METRICS)
    return [*lines, f"metrics: {text}"] if text else lines


def _plane_lines(results: Results) -> list[str]:
    """Averages over the plane: references, the best methods, and the published figures."""
    if results.plane is None:
        return []
    table = average_table(results.plane, results.methods)
    columns = ["product_percent", "healed_percent", "utility_percent"]
    if not (table["over"] == "healed").any():
        columns = ["efficacy"]
    table = table[table["over"] == ("efficacy" if columns == ["efficacy"] else "healed")]
    reference, published = table["method"].isin(PLANE_REFERENCES), table["source"] != OURS
    unlearners = table[~reference & ~published].dropna(subset=columns[0])
    best = unlearners.sort_values(columns[0], ascending=False, kind="stable").head(MOST_ON_PLANE)
    body = [
        [display(row["method"]), *(_value(row[c]) for c in columns), "" if row["source"] == OURS else row["source"]]
        for row in pd.concat([table[reference], best, table[published]]).to_dict("records")
    ]
    head = ["", *(c.replace("product", "utility x healed").replace("_percent", ", %") for c in columns), ""]
    left_out = f"; the best {len(best)} of {len(unlearners)} methods" if len(best) < len(unlearners) else ""
    title = f"== averages over discovery rates and attacks, budgets up to {percent(LARGEST_BUDGET)}{left_out} =="
    return ["", title, *_aligned([head, *body])]


def _value(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "n/a"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
