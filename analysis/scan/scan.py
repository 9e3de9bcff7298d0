"""One setting against what it changes: a scan in memory, and its table."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.reading.load import load_sweep
from analysis.results.verdict import display
from analysis.statistics.intervals import Interval, mean_interval
from sweeps.schema.records import GOOD
from sweeps.schema.stages import Stage
from unlearn_core.checks import InputError

SCAN_REFERENCES = ("none", "oracle", "retrain")
"""Corrupted model and oracles: one measurement per scenario."""
MEASURES = {
    "primary_value": "",  # called by the attack's own metric
    "primary_z": "its z against no poison",
    "gaussian_tpr_exact": "poisons found at 1 % false positives",
    "gaussian_clipped_z": "z if the clipped noise were scored",
    "test_accuracy": "test accuracy",
    "efficacy": "efficacy at the largest budget",
}
"""Columns that are shown where they have values, and their names."""
COLUMNS = ("order", "value", "attack", "primary_metric", "seed", "model", "budget", "attack_took", *MEASURES)


@dataclass(frozen=True)
class Scan:
    """A scan in memory. values: as they were given, in order. points: columns COLUMNS, `order` counts the values."""

    name: str
    axis: str
    values: tuple[str, ...]
    points: pd.DataFrame

    @property
    def attacks(self) -> list[str]:
        return list(dict.fromkeys(self.points["attack"]))

    def models(self, attack: str) -> list[str]:
        """Corrupted model, oracles, then the methods in the order of the records."""
        there = set(self.points.loc[self.points["attack"] == attack, "model"])
        return [m for m in dict.fromkeys((*SCAN_REFERENCES, *self.points["model"])) if m in there]

    def interval(self, attack: str, model: str, measure: str, order: int) -> Interval:
        """Mean and 95 % interval over seeds at value number `order`."""
        p = self.points
        here = (p["attack"] == attack) & (p["model"] == model) & (p["order"] == order)
        return mean_interval(p.loc[here, measure])

    def measures(self, attack: str) -> dict[str, str]:
        """Columns with values under `attack`, and their names."""
        own = self.points[self.points["attack"] == attack]
        metric = str(own["primary_metric"].iloc[0])
        return {c: name or metric for c, name in MEASURES.items() if own[c].notna().any()}


def read_scan(folder: str | Path) -> Scan:
    """Raises InputError, with one sentence for the user, where there is no scan or none of its sweeps has records."""
    folder = Path(folder)
    try:
        info = json.loads((folder / "scan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise InputError(f"{str(folder)!r} is not the folder of a scan: {problem}") from None
    parts = [_part(folder.parent, number, point) for number, point in enumerate(info["points"])]
    values = tuple(point["value"] for point in info["points"])
    return Scan(info["name"], info["axis"], values, pd.concat(parts, ignore_index=True))


def _part(root: Path, number: int, point: dict[str, Any]) -> pd.DataFrame:
    """The rows of one value: references of confirmation scenarios, and each method at its largest budget."""
    rows = load_sweep(root / point["sweep"]).rows
    rows = rows[(rows["held_out"] == "test") & rows["status"].isin(GOOD)]
    reference = rows[(rows["stage"] == Stage.REFERENCE) & rows["method"].isin(SCAN_REFERENCES)]
    at_budget = rows[(rows["stage"] == Stage.CONFIRMATION) | (rows["method"] == "retrain_at_budget")]
    largest = at_budget[at_budget["budget"] == at_budget["budget"].max()]
    largest = largest.sort_values("proposal").drop_duplicates(["attack", "method", "seed"])
    both = pd.concat([reference.assign(efficacy=float("nan")), largest])
    return both.assign(order=number, value=point["value"], model=both["method"]).reindex(columns=list(COLUMNS))


def table(scan: Scan) -> str:
    """Mean ± half of the 95 % interval over seeds, one line per attack, model and value."""
    lines = []
    for attack in scan.attacks:
        measures = scan.measures(attack)
        head = ["model", scan.axis, *measures.values()]
        body = [
            [display(model), value, *(_cell(scan.interval(attack, model, measure, i)) for measure in measures)]
            for model in scan.models(attack)
            for i, value in enumerate(scan.values)
        ]
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
        lines.append(f"== {attack} ==")
        lines += ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in (head, *body)]
    return "\n".join([*lines, "mean ± half of the 95 % interval over seeds"])


def _cell(found: Interval) -> str:
    if found.n == 0:
        return "-"
    return f"{found.mean:.3g}" if found.n == 1 else f"{found.mean:.3g} ± {found.half:.2g}"
