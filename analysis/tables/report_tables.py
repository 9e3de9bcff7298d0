"""The tables of a report as DataFrames, and how they are written: CSV with full numbers, Markdown rounded."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from analysis.figures.front import curve
from analysis.figures.tuning_gap import pairs
from analysis.reading.measurements import SINGLE_REFERENCES
from analysis.reading.points import CASE, RETRAIN_AT_BUDGET
from analysis.results.analyse import Results
from analysis.results.plane import average_table, cell_table
from analysis.results.verdict import display, percent
from analysis.statistics.intervals import stouffer
from analysis.tables.attack_costs import attack_costs
from analysis.tables.metric_table import metric_table
from sweeps.schema.records import GOOD
from sweeps.schema.stages import Stage
from unlearn_core.host.cells import inert

MOST_LINES = 2000
"""Rows of a table in Markdown."""
REMOVES_NOTHING = 0.005
"""Mean efficacy up to which the best of a budget is no best worth a mark."""


def all_tables(results: Results) -> dict[str, pd.DataFrame]:
    """Every table by file name. Budgets and costs are shares, accuracies and efficacies plain numbers."""
    tables = {
        "verdicts": verdict_table(results),
        "results": front_table(results),
        "best_per_budget": best_per_budget(results),
        "comparisons": results.comparisons,
        "hypervolume": results.hypervolumes,
        "tuning_gap": pairs(results),
        "sanity": sanity(results),
        "costs": costs(results),
        "attack_costs": attack_costs(results),
        "failures": failures(results),
        "metrics": metric_table(results),
        "agreement": results.agreement,
        "plane": average_table(results.plane, results.methods) if results.plane else pd.DataFrame(),
        "plane_cells": cell_table(results.plane) if results.plane else pd.DataFrame(),
    }
    rank = {attack: i for i, attack in enumerate(results.attacks)}
    return {
        name: table.sort_values("attack", key=lambda a: a.map(rank), kind="stable") if "attack" in table else table
        for name, table in tables.items()
    }


def verdict_table(results: Results) -> pd.DataFrame:
    """What is said of each attack, in words."""
    rows = [[v.attack, v.kind, v.text, "; ".join(v.remarks)] for v in results.verdicts]
    return pd.DataFrame(rows, columns=["attack", "kind", "verdict", "remarks"])


def front_table(results: Results) -> pd.DataFrame:
    """All points with intervals and costs; `on_front` refers to the selected budget axis and unlearners only."""
    columns = [
        *CASE, "efficacy", "efficacy_low", "efficacy_high", "removal", "removal_low", "removal_high", "utility_gap",
        "utility_gap_low", "utility_gap_high", "test_accuracy", "within_tolerance", "n_seeds", "n_counted", "n_failed",
        "n_missing", "n_not_taken", "budget_spent", "seconds_share", "sample_passes", "flops", "seconds", "steps",
        "settings",
    ]  # fmt: skip
    table = results.points.reindex(columns=columns)
    fronts = [curve(results, attack).points for attack in results.attacks]
    on_front = pd.concat(fronts) if fronts else pd.DataFrame(columns=[*CASE, "on_front"])
    table = table.merge(on_front[[*CASE, "on_front"]], on=CASE, how="left")
    return table.assign(on_front=table["on_front"].eq(True))


def best_per_budget(results: Results) -> pd.DataFrame:
    """The unlearner with the largest mean efficacy inside the tolerance and counted on all seeds, per budget."""
    points = results.points
    eligible = points[points["eligible"].astype(bool) & points["efficacy"].notna()]
    unlearners = eligible[eligible["method"] != RETRAIN_AT_BUDGET]
    best = unlearners.sort_values("efficacy").drop_duplicates(["attack", "budget"], keep="last")
    paired = results.comparisons[results.comparisons["against"] == RETRAIN_AT_BUDGET]
    best = best.merge(paired[[*CASE, "difference", "low", "high", "q", "outcome"]], on=CASE, how="left")
    rival = points[points["method"] == RETRAIN_AT_BUDGET][["attack", "budget", "efficacy", "utility_gap"]]
    rival = rival.rename(columns={"efficacy": "retrain@b efficacy", "utility_gap": "retrain@b utility_gap"})
    every = points.loc[points["n_counted"] > 0, ["attack", "budget"]].drop_duplicates()
    columns = ["method", "efficacy", "efficacy_low", "efficacy_high", "utility_gap", "n_counted"]
    best = best[["attack", "budget", *columns, "difference", "low", "high", "q", "outcome", "settings"]]
    table = every.merge(best, on=["attack", "budget"], how="left").merge(rival, on=["attack", "budget"], how="left")
    return table.sort_values(["attack", "budget"], ignore_index=True)


def sanity(results: Results) -> pd.DataFrame:
    """Did the attack take? One row per scenario, and one that pools the z of the confirmation scenarios (Stouffer)."""
    rows = results.references
    wide = rows[rows["method"].isin(SINGLE_REFERENCES)]
    values = wide.pivot_table(
        index=["attack", "role", "seed"],
        columns="method",
        values=["primary_value", "primary_z", "efficacy", "test_accuracy"],
    )
    picked = {
        "corrupted": ("primary_value", "none"),
        "oracle": ("primary_value", "oracle"),
        "second_oracle": ("primary_value", "retrain"),
        "retrain_discovered": ("primary_value", "retrain_discovered"),
        "second_oracle_efficacy": ("efficacy", "retrain"),
        "corrupted_z": ("primary_z", "none"),
        "oracle_z": ("primary_z", "oracle"),
        "corrupted_accuracy": ("test_accuracy", "none"),
        "oracle_accuracy": ("test_accuracy", "oracle"),
    }
    table = pd.DataFrame({name: values.get(key, math.nan) for name, key in picked.items()}, index=values.index)
    if table["retrain_discovered"].isna().all():
        table = table.drop(columns="retrain_discovered")
    scenarios = rows.groupby(["attack", "role", "seed"])
    took = scenarios["took"].any().map({True: "yes", False: "no"})
    parts = scenarios["failed_parts"].first()  # of a bundle
    took = took + (": " + parts.astype("string").str.replace(",", ", ")).fillna("")
    table = table.join(took.rename("took")).join(scenarios["primary_metric"].first()).reset_index()
    table["seed"] = table["seed"].map("{:g}".format)
    table.insert(3, "took", table.pop("took"))
    pooled = [_pooled(str(a), own) for a, own in table[table["role"] == Stage.CONFIRMATION].groupby("attack")]
    return pd.concat([table, pd.DataFrame(pooled)], ignore_index=True).sort_values(["attack", "role"], kind="stable")


def _pooled(attack: str, own: pd.DataFrame) -> dict[str, object]:
    means = own[[c for c in own if c not in ("attack", "role", "seed", "took", "primary_metric")]].mean()
    pooled = {name: stouffer(own[name]) for name in ("corrupted_z", "oracle_z")}
    took = f"{int((own['took'] == 'yes').sum())} of {len(own)}"
    same = {"attack": attack, "role": Stage.CONFIRMATION.value, "seed": "mean, pooled z", "took": took}
    return {**same, "primary_metric": own["primary_metric"].iloc[0], **means, **pooled}


def costs(results: Results) -> pd.DataFrame:
    """Seconds, FLOPs and steps of one confirmed run at its largest budget, and of everything a method was given."""
    rows = results.sweep.rows
    sums = ["seconds", "flops", "steps"]
    trials = rows.groupby(["stage", "method", "trial_id"], sort=True)[[*sums, "peak_memory_bytes"]].max()
    total = trials.groupby("method").agg(trials=("seconds", "size"), **{f"total_{c}": (c, "sum") for c in sums})
    stages = [Stage.CONFIRMATION, Stage.REFERENCE]
    single = (
        trials[trials.index.get_level_values("stage").isin(stages)]
        .groupby("method")[[*sums, "peak_memory_bytes"]]
        .mean()
    )
    table = single.rename(columns={c: f"{c}_per_run" for c in sums}).join(total, how="right")
    return table.reset_index()[["method", *(c for c in table if c != "peak_memory_bytes"), "peak_memory_bytes"]]


def failures(results: Results) -> pd.DataFrame:
    """Rungs that diverged or failed, by stage and method, and the last line of the first traceback."""
    rows = pd.concat([results.sweep.rows, results.sweep.ensemble], ignore_index=True)
    bad = rows[~rows["status"].isin(GOOD)]
    last = bad["error"].map(lambda text: str(text).strip().splitlines()[-1] if isinstance(text, str) and text else "")
    bad = bad.assign(error=last.str.slice(0, 200))
    keys = ["stage", "attack", "method", "status"]
    grouped = bad.groupby(keys)
    return grouped.size().rename("rungs").to_frame().join(grouped["error"].max()).reset_index()


def grid_text(results: Results, attack: str, *, most: int | None = None) -> tuple[list[str], list[list[str]]]:
    """Method x budget in words: header and rows. `*` = best, `!` = outside tolerance, `nF`, `nM` = n failed, missing.

    No `*` for an efficacy that reads 0.00.
    Shows at most so many methods besides retrain@b, those with the largest efficacy that is eligible. No rows for an
    attack that did not take: there is nothing to tell.
    """
    points = results.points[(results.points["attack"] == attack) & (results.points["n_seeds"] > 0)]
    budgets = sorted(points["budget"].unique())
    best = best_per_budget(results)
    best = best[(best["attack"] == attack) & (best["efficacy"] > REMOVES_NOTHING)]
    stars = {(row.method, row.budget) for row in best.itertuples()}
    present = set(points["method"])
    ranked = points[points["eligible"].astype(bool)].groupby("method")["efficacy"].max().sort_values(ascending=False)
    kept = list(dict.fromkeys([*(m for m in ranked.index if m != RETRAIN_AT_BUDGET), *results.methods]))[:most]
    methods = [m for m in (RETRAIN_AT_BUDGET, *results.methods) if m in present & {RETRAIN_AT_BUDGET, *kept}]
    cells = {(row["method"], row["budget"]): row for row in points.to_dict("records")}
    body = [[display(m), *(cell_text(cells.get((m, b)), star=(m, b) in stars) for b in budgets)] for m in methods]
    return ["method", *(percent(b) for b in budgets)], body


def cell_text(point: dict[object, object] | dict[str, object] | None, *, star: bool = False) -> str:
    """`0.85±0.12 (+.010)*`: efficacy, half of its interval, utility gap and marks."""
    if point is None:
        return "-"
    low, high = float(str(point["efficacy_low"])), float(str(point["efficacy_high"]))
    mean, gap = float(str(point["efficacy"])), float(str(point["utility_gap"]))
    failed = "".join(f" {point[f'n_{word}']}{word[0].upper()}" for word in ("failed", "missing") if point[f"n_{word}"])
    if not math.isfinite(mean):
        return failed.strip() or "n/a"
    half = f"±{(high - low) / 2:.2f}" if math.isfinite(low) else ""
    marks = ("*" if star else "") + ("" if point["within_tolerance"] else "!") + failed
    return f"{mean:.2f}{half} ({gap:+.3f}){marks}"


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Names of attacks, methods and the like may be anybody's: none becomes a formula."""
    safe = table.copy()
    for name in table.select_dtypes(exclude=["number", "bool"]):
        safe[name] = table[name].astype(object).map(inert)
    safe.rename(columns=inert).to_csv(path, index=False)


def write_tables(tables: dict[str, pd.DataFrame], folder: Path) -> None:
    """Write `<name>.csv` and, for people, the first MOST_LINES as `<name>.md` for each table."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in tables.items():
        write_csv(table, folder / f"{name}.csv")
        text = markdown(table.head(MOST_LINES))
        if len(table) > MOST_LINES:
            text += f"\nFirst {MOST_LINES} of {len(table)} rows; all of them: `{name}.csv`.\n"
        (folder / f"{name}.md").write_text(text, encoding="utf-8")


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table with rounded numbers; bars and line breaks in texts are escaped."""

    def line(cells: list[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|").replace("\n", " ") for c in cells) + " |"

    rows = [[number(value) for value in row] for row in table.itertuples(index=False)]
    head = [str(c) for c in table.columns]
    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)]) + "\n"


def number(value: object) -> str:
    """A value for people: three significant digits, words for truth, nothing for missing."""
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.3g}"
    if value is None or value is pd.NA:
        return ""
    return {"True": "yes", "False": "no"}.get(str(value), str(value))
