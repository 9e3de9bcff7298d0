"""Reads a results folder into one tidy table: one row per rung, typed, with attack labels that tell cases apart."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sweeps.schema.line_files import Damage, first_of_each, read_files
from sweeps.schema.manifest_kinds import wrong_in_manifest
from sweeps.schema.records import BUDGET_DIGITS, COLUMNS, RUNG_COLUMNS, TRIAL_COLUMNS, Trial, flatten
from sweeps.schema.stages import Stage
from unlearn_core.checks import InputError

REQUIRED = (
    "attack", "method", "stage", "seed", "trial_id", "settings", "chosen_for", "attack_took",
    "budget", "budget_spent", "status", "removal", "efficacy", "test_accuracy", "utility_gap",
)  # fmt: skip
"""Without these there is no result; every other column of the schema may be missing in an older folder."""

NO_NUMBERS = [name for name, column in COLUMNS.items() if column.kind in (str, bool)]
REPEATED = ("sweep", "scenario_id", "group_id", "attack_settings", "code_version", "machine")
"""Texts that are the same in many rows and that nothing is grouped by: kept once each (pandas' categories)."""
ADDED = ("took", "base_attack", "regularity")
"""Columns of `Sweep.rows` that are no metric and in no schema of the records: made here, or not always there."""


@dataclass(frozen=True)
class Sweep:
    """A results folder in memory."""

    folder: Path
    info: dict[str, Any]  # sweep.json, {} when it is missing
    rows: pd.DataFrame  # one row per rung, all columns of the schema and one per metric, see `tidy`
    ensemble: pd.DataFrame  # likewise: metrics of many models at once; they join agreement and are no results
    notes: tuple[str, ...]  # what is missing or damaged, for the reader of the report

    @property
    def name(self) -> str:
        return str(self.info.get("name") or self.folder.resolve().name)

    @property
    def spec(self) -> dict[str, Any]:
        return _mapping(self.info.get("spec"))

    @property
    def metric_columns(self) -> list[str]:
        """Columns that are metrics, in the order of the records."""
        return [c for c in self.rows.columns if c not in {*COLUMNS, *ADDED}]


def load_sweep(folder: str | Path) -> Sweep:
    """Read the folder of a sweep.

    Args:
        folder: `OUT/<sweep name>`.

    Raises:
        InputError: With one sentence for the user, when there are no usable records.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"results folder {str(folder)!r} does not exist")
    rows, notes = read_rows(folder)
    if rows.empty:
        raise InputError(f"results folder {str(folder)!r} holds no records yet")
    lacking = [name for name in REQUIRED if name not in rows]
    if lacking:
        raise InputError(f"the records in {str(folder)!r} lack the columns {', '.join(lacking)}: not a results folder?")
    info, more = read_info(folder)
    absent = [name for name in (*TRIAL_COLUMNS, *RUNG_COLUMNS) if name not in rows]
    if absent:
        more.append("The records were written by another version, without these columns: " + ", ".join(absent) + ".")
    known = tidy(rows)
    more += _strangers(known)
    apart = known["stage"] == Stage.ENSEMBLE
    results = known[~apart].reset_index(drop=True) if apart.any() else known
    if results.empty:
        raise InputError(f"results folder {str(folder)!r} holds ensembles, but no trials yet")
    ensemble = known[apart].reset_index(drop=True)
    return Sweep(folder=folder, info=info, rows=results, ensemble=ensemble, notes=(*notes, *more))


def _strangers(rows: pd.DataFrame) -> list[str]:
    """A note where an attack's rows are of several scenario groups: a sweep has one per attack."""
    groups = rows.groupby("base_attack")["group_id"].nunique()
    mixed = sorted(groups.index[groups > 1])
    note = f"Rows of {', '.join(mixed)} are of several scenario groups: trials of another sweep are among them."
    return [note] if mixed else []


def read_rows(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Rows as stored and notes about them: `records.parquet`, or else the part files that it is made from."""
    table = folder / "records.parquet"
    if table.exists():
        try:
            return pd.read_parquet(table, read_dictionary=list(REPEATED)), []
        except (OSError, ValueError, KeyError) as problem:  # pyarrow's errors derive from these
            reason = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
            raise InputError(f"{str(table)!r} cannot be read as a parquet file: {reason}") from problem
    parts, damaged = sorted((folder / "records").rglob("*.jsonl")), list[Damage]()
    rows = [row for trial in _read_trials(parts, damaged.append) for row in flatten(trial)]
    notes = [f"records.parquet is missing; the rows come from {len(parts)} part file(s) instead."] if parts else []
    if damaged:
        first = f"{damaged[0].file}, line {damaged[0].number}: {damaged[0].problem}"
        notes.append(f"{len(damaged)} torn or damaged line(s) in the part files were left out, first {first}.")
    return pd.DataFrame(rows), notes


def _read_trials(parts: Sequence[Path], damaged: Callable[[Damage], None]) -> Iterator[Trial]:
    """The trials in part files, each once."""
    files = ((f"{part.parent.name}/{part.name}", part.read_bytes()) for part in parts)
    cells = groupby(files, key=lambda file: file[0].partition("/")[0])
    return first_of_each(trial for _, cell in cells for trial in read_files(cell, damaged))


def read_info(folder: Path) -> tuple[dict[str, Any], list[str]]:
    """sweep.json as a dictionary, and notes when it is missing or damaged."""
    path = folder / "sweep.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, ["sweep.json is missing: command, versions and settings of the sweep are unknown."]
    except (OSError, ValueError, RecursionError) as problem:
        return {}, [f"sweep.json cannot be read ({problem}): command, versions and settings are unknown."]
    known = _mapping(info)
    known = {key: value for key, value in known.items() if key not in wrong_in_manifest(known)}
    missing = [key for key in ("command", "spec", "versions", "code_version", "machine") if not known.get(key)]
    return known, [f"sweep.json does not tell: {', '.join(missing)}."] if missing else []


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def tidy(rows: pd.DataFrame) -> pd.DataFrame:
    """Typed copy of `rows` with all columns of the schema, distinct attack labels, and three columns more or filled.

    base_attack: the attack's label without the discovery rate, so that attack and rate can be distinguished.
    regularity: how regular the attack's corruption is: low, medium, high, or empty where the records do not say.
    took: bool, whether the attack succeeded.
    """
    rows = rows.reindex(columns=list(dict.fromkeys([*TRIAL_COLUMNS, *RUNG_COLUMNS, *rows.columns])))
    for name in rows.columns.difference(NO_NUMBERS):
        if not _is_clean(rows[name]):  # what the sweep wrote is: at a million rows a copy counts
            rows[name] = _number(rows[name], strict=name in RUNG_COLUMNS)
    for name in ("attack", "method", "stage", "held_out", "settings", "status"):
        rows[name] = _words(rows[name])
    rows["budget"] = rows["budget"].round(BUDGET_DIGITS)
    known = rows["regularity"] if "regularity" in rows else pd.Series(None, index=rows.index, dtype=object)
    rows["regularity"] = _words(known)
    rows = _distinct_attacks(rows)
    rows["took"] = _took(rows)
    return rows.reset_index(drop=True)


def _words(column: pd.Series) -> pd.Series:
    """Texts, empty where there is none; equal ones are one object."""
    return column.astype(object).where(column.notna(), "").map(lambda text: sys.intern(str(text)))


def _number(column: pd.Series, *, strict: bool) -> pd.Series:
    """Finite numbers as floats; a column that holds words stays as it is, unless it must be a number."""
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    if not strict and numbers.notna().sum() < column.notna().sum():
        return column
    return numbers.where(np.isfinite(numbers))


def _is_clean(column: pd.Series) -> bool:
    """Whether a column holds nothing but finite floats and empty cells."""
    return column.dtype == np.float64 and not np.isinf(column.to_numpy()).any()


def _took(rows: pd.DataFrame) -> pd.Series:
    """Whether the attack succeeded, per row; where a row does not say, what the rest of its scenario says."""
    words = {"true": 1.0, "1": 1.0, "1.0": 1.0, "false": 0.0, "0": 0.0, "0.0": 0.0}
    said = rows["attack_took"].map(lambda value: words.get(str(value).lower(), np.nan)).astype(float)
    scenario = said.groupby([rows["attack"], rows["seed"]], dropna=False).transform("max")
    defined = rows["removal"].notna().astype(float)
    return said.fillna(scenario).fillna(defined).astype(bool)


def _distinct_attacks(rows: pd.DataFrame) -> pd.DataFrame:
    """Extend the attack label by whatever else differs between trials of one attack, e.g. the discovery rate.

    Reference and ensemble rows that know no discovery rate are repeated for each.
    """
    rows = rows.assign(base_attack=rows["attack"])
    shares = rows["stage"].isin([Stage.REFERENCE, Stage.ENSEMBLE])
    trials = rows[~shares]
    candidates = ("dataset", "model", "poison_fraction", "discovery_rate")
    varying = [c for c in candidates if rows.groupby("attack")[c].nunique().max() > 1]
    if not varying:
        return rows
    lone = ~rows["attack"].isin(
        trials["attack"]
    )  # a case may have references and no trials (yet, or it succeeded nowhere)
    whole = rows[~shares | rows["discovery_rate"].notna() | lone]
    cases = whole.groupby(["attack", *varying], sort=False, dropna=False)["discovered"].first().reset_index()
    same_attack = [c for c in varying if c != "discovery_rate"]
    cases["label"] = [_label(case, varying) for case in cases.to_dict("records")]
    cases["base_label"] = [_label(case, same_attack) for case in cases.to_dict("records")]
    cases = cases.drop(columns="discovered")
    references = rows[shares].merge(cases, on=["attack", *same_attack], suffixes=("", "_case"))
    if "discovery_rate" in varying:
        rate, case = references["discovery_rate"], references.pop("discovery_rate_case")
        fits = (rate == case) | rate.isna()
        references = references.assign(discovery_rate=case)[fits]
    both = pd.concat([references, trials.merge(cases, on=["attack", *varying])], ignore_index=True)
    return both.assign(attack=both.pop("label"), base_attack=both.pop("base_label"))


def _label(case: dict[Any, Any], varying: list[str]) -> str:
    return ", ".join([case["attack"], *(_difference(case, column) for column in varying)])


def _difference(case: dict[Any, Any], column: str) -> str:
    value = case[column]
    if column == "discovery_rate" and case["discovered"] == 1 and value < 1:
        return f"discovered {single_poison(value)}"
    return f"{column.replace('_', ' ')} " + (f"{value:.4g}" if isinstance(value, float) else str(value))


def single_poison(rate: float) -> str:
    """A discovery rate that is a single one of m poisons, 1 / m, in words."""
    return f"1 of {round(1 / rate)}"


def attack_name(sweep: Sweep, base_attack: str) -> str:
    """The registered name of an attack that the records know by its label; "" where the settings do not tell.

    A base attack is a label, or a label, a comma and what else tells cases apart.
    """
    listed = sweep.spec.get("attacks")
    names = {
        str(a.get("label") or a.get("name")): str(a.get("name", ""))
        for a in (listed if isinstance(listed, list) else [])
        if isinstance(a, dict)
    }
    fits = [label for label in names if f"{base_attack}, ".startswith(f"{label}, ")]
    return names[max(fits, key=len)] if fits else ""
