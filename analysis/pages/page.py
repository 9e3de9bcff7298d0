"""The report page: fills the template; every text from the records is escaped by it."""

from __future__ import annotations

import base64
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from analysis.pages.data_section import data_section
from analysis.pages.interactive import front_spec, tradeoff_spec
from analysis.reading.load import single_poison
from analysis.reading.points import AXES
from analysis.results.agreement import CLEAR, sentence
from analysis.results.analyse import Results
from analysis.results.plane import LARGEST_BUDGET
from analysis.results.verdict import display, percent
from analysis.tables.report_tables import grid_text, number
from sweeps.schema.records import COLUMNS
from sweeps.schema.stages import Stage

ROWS_SHOWN = 400
"""Rows of a table on the page; the CSV file always holds all of them."""
REMARKS_SHOWN = 5
"""Remarks of a verdict that stand open; more are folded away."""
ATTACKS_OPEN = 4
"""With more attacks than this, tables and figures that exist once per attack are folded."""
KINDS = {
    "beats": "a method wins",
    "retrain_beats_all": "retrain@b wins",
    "beats_with_utility": "a method wins, counting utility",
    "none_beats": "no method wins",
    "undecided": "undecided",
    "not_taken": "attack did not take",
    "no_results": "undecided",
}


def render(results: Results, *, tables: dict[str, pd.DataFrame], figures: dict[str, list[Path]]) -> str:
    """The whole page as one string that needs no other file and no network."""
    sweep = results.sweep
    return (
        environment()
        .get_template("report.html")
        .render(
            results=results,
            sweep=sweep,
            folder=shlex.quote(str(sweep.folder)),
            kinds=KINDS,
            axes={name: axis.label for name, axis in AXES.items()},
            axis=next(name for name, axis in AXES.items() if axis == results.axis),
            facts=_facts(results),
            data=data_section(sweep.info.get("card")),
            grids={attack: grid_text(results, attack) for attack in results.shown},
            tables={name: _shown(table) for name, table in tables.items()},
            rows_shown=ROWS_SHOWN,
            remarks_shown=REMARKS_SHOWN,
            attacks_open=ATTACKS_OPEN,
            agreements={attack: sentence(results.agreement, attack) for attack in results.shown},
            clear=CLEAR,
            largest_budget=percent(LARGEST_BUDGET),
            images={kind: [_image(path) for path in paths] for kind, paths in figures.items()},
            drawn=[has_points(results, attack) for attack in results.shown],
            command=_command(sweep.info.get("command")),
            methods=_described(sweep.info.get("methods")),
            columns=_columns(results),
            versions=_described(sweep.info.get("versions")),
            machine=_described(sweep.info.get("machine")),
            spec=json.dumps(sweep.spec, indent=2, ensure_ascii=False, default=str) if sweep.spec else "",
            plotly=Markup(_plotly()),
            specs=Markup(_script_json(_specs(results))),
        )
    )


def environment() -> Environment:
    """Templates of this room; whatever stands in the records is escaped."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["cell"] = number
    return made


def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # the 4.7 MB text is read only when a page is made

    return get_plotlyjs()


def _specs(results: Results) -> dict[str, Any]:
    """Figures by position of their attack: names never become identifiers of elements."""
    shown = {i: attack for i, attack in enumerate(results.shown) if has_points(results, attack)}
    return {
        "fronts": {i: {axis: front_spec(results, attack, axis) for axis in AXES} for i, attack in shown.items()},
        "tradeoffs": {i: tradeoff_spec(results, attack) for i, attack in shown.items()},
    }


def has_points(results: Results, attack: str) -> bool:
    """Whether there is anything to draw for `attack`."""
    own = results.points[results.points["attack"] == attack]
    tuned = (results.proposals["attack"] == attack).any()
    return bool(tuned or own["efficacy"].notna().any())


def _script_json(value: object) -> str:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _command(command: object) -> str:
    if isinstance(command, list):
        return shlex.join(map(str, command))
    return str(command or "unknown: sweep.json does not say")


def _facts(results: Results) -> list[tuple[str, str]]:
    """Scenario in a line each: data, model, seeds, size of the sweep."""
    rows, info = results.sweep.rows, results.sweep.info
    seeds = [f"{role} {_join(own['seed'])}" for role, own in rows[rows["stage"] != Stage.REFERENCE].groupby("stage")]
    return [
        ("data set", _join(rows["dataset"])),
        ("model", _join(rows["model"])),
        ("poison fraction", _join(rows["poison_fraction"])),
        ("discovery rate", _rates(rows)),
        ("seeds", "; ".join(sorted(seeds, reverse=True)) or "unknown"),
        ("utility tolerance", f"{results.tolerance:g}"),
        ("trials", f"{rows['trial_id'].nunique()} with {len(rows)} rungs"),
        ("code version", str(info.get("code_version") or _join(rows["code_version"]))),
        ("started", str(info.get("started_at") or "unknown")),
    ]


def _rates(rows: pd.DataFrame) -> str:
    single = (rows["discovered"] == 1) & (rows["discovery_rate"] < 1)
    words = dict.fromkeys(map(single_poison, sorted(rows.loc[single, "discovery_rate"].unique())))
    return ", ".join([*words, *([_join(rows.loc[~single, "discovery_rate"])] if len(rows[~single]) else [])])


def _join(values: pd.Series) -> str:
    distinct = sorted(set(values.dropna()))
    return ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in distinct[:12]) or "unknown"


def _shown(table: pd.DataFrame) -> dict[str, Any]:
    body = _readable(table.drop(columns=[c for c in ("settings",) if c in table]).head(ROWS_SHOWN))
    return {"head": list(body.columns), "body": body.to_numpy(dtype=object).tolist(), "length": len(table)}


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Intervals as `mean [low, high]` in one column, budgets in per cent, methods by their shown names."""
    table = table.copy()
    for name in [str(c) for c in table.columns]:
        low, high = (f"{name}_low", f"{name}_high") if f"{name}_low" in table else ("low", "high")
        if low in table and (low != "low" or name in ("difference", "mean")):
            table[name] = [_interval(*ends) for ends in zip(table[name], table.pop(low), table.pop(high), strict=True)]
    for name in {"method", "against", "front", "best_method"} & set(table.columns):
        table[name] = [display(value) if isinstance(value, str) else "" for value in table[name]]
    for name in {"budget", "best_budget", "discovery_rate"} & set(table.columns):
        table[name] = ["" if math.isnan(value) else percent(value) for value in table[name]]
    return table


def _interval(mean: float, low: float, high: float) -> str:
    return number(mean) if math.isnan(low) else f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def _image(path: Path) -> dict[str, str]:
    data = base64.b64encode(path.read_bytes()).decode()
    return {"name": path.name, "uri": f"data:image/png;base64,{data}"}


def _described(value: object) -> list[tuple[str, str, str]]:
    """(name, text, citation) rows of a mapping in sweep.json; anything else is nothing."""
    if not isinstance(value, dict):
        return []
    return [
        (str(name), str(entry.get("summary", "")), str(entry.get("cite", "")))
        if isinstance(entry, dict) and ("summary" in entry or "cite" in entry)
        else (str(name), entry if isinstance(entry, str) else json.dumps(entry, default=str), "")
        for name, entry in value.items()
    ]


def _columns(results: Results) -> list[tuple[str, str, str]]:
    """Metric columns with their meaning, share of rows that have them, then the columns of the schema."""
    meanings = results.sweep.info.get("metrics")
    described: dict[str, Any] = meanings if isinstance(meanings, dict) else {}
    rows = results.sweep.rows
    names: Sequence[str] = [*dict.fromkeys([*results.sweep.metric_columns, *described])]
    metrics = [(n, str(described.get(n, "not described")), _filled(rows, n)) for n in names]
    return metrics + [(n, column.meaning, _filled(rows, n)) for n, column in COLUMNS.items()]


def _filled(rows: pd.DataFrame, name: str) -> str:
    return f"{100 * rows[name].notna().mean():.0f} %" if name in rows else "absent"
