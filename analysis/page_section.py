"""A sweep's results as a section of Markdown, for a page that is kept: `python -P -m analysis.page_section DIR`."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Hashable, Iterable, Sequence
from datetime import datetime

import pandas as pd

from analysis.reading.load import load_sweep
from analysis.reading.points import RETRAIN_AT_BUDGET
from analysis.results.analyse import Results, analyse
from analysis.results.verdict import Verdict, display, percent
from analysis.tables.report_tables import markdown
from sweeps.schema.stages import Stage
from unlearn_core.checks import InputError
from unlearn_core.host.output import run as run_command

WIDTH = 118
LEGEND = textwrap.fill(
    "Mean efficacy (utility gap) over the confirmation scenarios, per budget in shares of the oracle's FLOPs; "
    "`!` = outside the tolerance, `nF`, `nM` = n seeds failed, missing.",
    WIDTH,
)


def section(results: Results, *, budgets: Iterable[float] = ()) -> str:
    """What was run, whether each attack succeeded, efficacy and utility gap of every method, and the verdicts.

    Args:
        results: Of one sweep.
        budgets: The columns of the tables; by default every budget of the sweep.
    """
    shown = [round(b, 9) for b in budgets] or sorted(results.points["budget"].unique())
    parts = [_facts(results), markdown(gates(results)), LEGEND]
    for judged in results.verdicts:
        parts += [f"### {judged.attack}", markdown(grid(results, judged.attack, shown)), _told(judged)]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def gates(results: Results) -> pd.DataFrame:
    """Whether each attack succeeded: one row per attack, means over confirmation scenarios with least and largest."""
    confirmed = results.references[results.references["role"] == Stage.CONFIRMATION]
    rows = []
    for attack, own in confirmed.groupby("attack", sort=False):
        scenarios = own.groupby("seed")["took"].any()
        row = {"attack": attack, "metric": own["primary_metric"].iloc[0]}
        for name, method in (("corrupted", "none"), ("oracle", "oracle"), ("second oracle", "retrain")):
            row[name] = _spread(own.loc[own["method"] == method, "primary_value"])
        for name, method in (("z corrupted", "none"), ("z oracle", "oracle")):
            row[name] = _spread(own.loc[own["method"] == method, "primary_z"])
        for name, method in (("accuracy corrupted", "none"), ("accuracy oracle", "oracle")):
            row[name] = _spread(own.loc[own["method"] == method, "test_accuracy"])
        rows.append(row | {"took": f"{int(scenarios.sum())} of {len(scenarios)}"})
    rank = {attack: i for i, attack in enumerate(results.attacks)}
    table = pd.DataFrame(rows).sort_values("attack", key=lambda a: a.map(rank), kind="stable")
    return table.loc[:, (table != "").any()]


def _spread(values: pd.Series) -> str:
    """`0.85 (0.84 to 0.88)`; empty where nothing is known."""
    known = values.dropna()
    return f"{known.mean():.3g} ({known.min():.3g} to {known.max():.3g})" if len(known) else ""


def grid(results: Results, attack: str, budgets: Sequence[float]) -> pd.DataFrame:
    """Method x budget in words, the largest efficacy that is eligible first; retrain@b at the top."""
    points = results.points[(results.points["attack"] == attack) & (results.points["n_seeds"] > 0)]
    cells = {(p["method"], round(p["budget"], 9)): p for p in points.to_dict("records")}
    ranked = points[points["eligible"].astype(bool)].groupby("method")["efficacy"].max().sort_values(ascending=False)
    order = dict.fromkeys([RETRAIN_AT_BUDGET, *map(str, ranked.index), *results.methods])
    methods = [m for m in order if m in set(points["method"])]
    rows = [[display(m), *(_cell(cells.get((m, b))) for b in budgets)] for m in methods]
    return pd.DataFrame(rows, columns=["method", *map(percent, budgets)])


def _cell(point: dict[Hashable, object] | None) -> str:
    """`0.85 (+0.010)!`."""
    if point is None:
        return "-"
    marks = "".join(f" {point[f'n_{word}']}{word[0].upper()}" for word in ("failed", "missing") if point[f"n_{word}"])
    if not point["n_counted"]:
        return marks.strip() or "n/a"
    efficacy = round(float(str(point["efficacy"])), 2) + 0.0  # no minus zero
    return (
        f"{efficacy:.2f} ({float(str(point['utility_gap'])):+.3f})" + ("" if point["within_tolerance"] else "!") + marks
    )


def _told(judged: Verdict) -> str:
    lines = [textwrap.fill(f"Verdict: {judged.text}.", WIDTH)]
    return "\n".join([*lines, *(textwrap.fill(f"- {r}", WIDTH, subsequent_indent="  ") for r in judged.remarks)])


def _facts(results: Results) -> str:
    """Size and time of the sweep; the time is from its start to its last trial, pauses included."""
    info, rows = results.sweep.info, results.sweep.rows
    seeds = rows.loc[rows["stage"] == Stage.CONFIRMATION, "seed"].nunique()
    facts = [f"{rows['trial_id'].nunique()} trials", f"{seeds} confirmation scenarios per attack"]
    facts.append(f"tolerance {100 * results.tolerance:g} points")
    machine = info.get("machine")
    if isinstance(machine, dict) and "threads" in machine:
        facts.append(f"{machine.get('device')}, {machine['threads']} thread(s) per process")
    if info.get("started_at") and rows["finished_at"].notna().any():
        began = datetime.fromisoformat(str(info["started_at"])).timestamp()
        facts.append(f"{(rows['finished_at'].max() - began) / 60:.1f} minutes")
    return textwrap.fill("; ".join(facts) + ".", WIDTH)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns 0, or 2 with one message on stderr when there is nothing to tell."""
    parser = argparse.ArgumentParser(prog="python -P -m analysis.page_section", description=__doc__)
    parser.add_argument("folder", metavar="DIR", help="results folder of one sweep (OUT/<sweep name>)")
    parser.add_argument("--budgets", type=float, nargs="+", default=[], help="columns (default: every budget)")
    given = parser.parse_args(arguments)
    try:
        print(section(analyse(load_sweep(given.folder)), budgets=given.budgets), end="")
    except InputError as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(main))
