"""Which metrics rank unlearned models as the attack's primary metric does, over every rung that was measured.

The question behind it: do membership attacks and the like see what the primary metric (e.g. the Gaussian score) sees?
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from analysis.reading.load import Sweep
from analysis.reading.measurements import measured, metric_meanings, reference_values
from analysis.statistics.rank_correlation import LEAST_METHODS, Against, RankCorrelation
from sweeps.schema.stages import Stage

STAGES = (Stage.CONFIRMATION.value, Stage.TUNING.value)
CLEAR = 0.5
"""Rank correlation that the whole interval must exceed for a metric to agree clearly."""
VARIES = 0.1
"""Range of efficacy over the models below which ranking them says little: much of it is noise."""
MEMBERSHIP = ("membership", "ulira", "mia")
"""Words in the names of metrics that are membership attacks."""
UNITS = {"n": "rung", "n_methods": "method", "n_seeds": "seed"}
COLUMNS = [
    "attack", "stage", "primary", "metric", "closeness", "closeness_low", "closeness_high", "raw", "raw_low",
    "raw_high", "n", "n_methods", "n_seeds", "efficacy_range", "reason",
]  # fmt: skip


def agreement(sweep: Sweep, reference_rows: pd.DataFrame) -> pd.DataFrame:
    """One row per (attack, stage, metric), strongest first; references are no trials and do not count.

    Columns:
        closeness: Spearman's rho of -|metric - oracle's of the same scenario| and efficacy: does being like the
            oracle in this metric go with being like it in the primary metric?
        raw: Spearman's rho of the metric and the primary metric, as they are.
        *_low, *_high: 95 % intervals (`rank_correlation`), for each metric on its own.
        n, n_methods, n_seeds: rungs, methods and seeds behind `closeness`.
        efficacy_range: largest minus smallest efficacy of those rungs.
        reason: why something is empty.
    The primary metric itself and columns that nothing was measured in are left out. Metrics of ensembles stand in the
    confirmation, beside the model of the same settings, seed and budget.
    """
    oracle = reference_values(sweep, reference_rows).reset_index()
    oracle = oracle[oracle["method"] == "oracle"].drop(columns="method")
    rows = [row for stage in STAGES for row in _stage(sweep, stage, oracle)]
    table = pd.DataFrame(rows, columns=COLUMNS)
    order = {attack: i for i, attack in enumerate(dict.fromkeys(sweep.rows["attack"]))}
    rank = table.assign(attack=table["attack"].map(order), stage=table["stage"].map(STAGES.index))
    rank = rank.sort_values(["attack", "stage", "closeness"], ascending=[True, True, False], kind="stable")
    return table.loc[rank.index].reset_index(drop=True)


def _stage(sweep: Sweep, stage: str, oracle: pd.DataFrame) -> Iterator[dict[str, object]]:
    names = list(metric_meanings(sweep))
    own_role = oracle[oracle["role"] == stage].drop(columns="role")
    rows = measured(sweep, stage)
    both = rows.merge(own_role, on=["attack", "seed"], how="left", suffixes=("", "_of_oracle"))
    for attack, group in both.groupby("attack", sort=False):
        primary = set(group["primary_metric"].dropna())
        units = {"methods": group["method"].to_numpy(dtype=str), "seeds": group["seed"].to_numpy()}
        partners = [Against(group[column].astype(float), **units) for column in ("efficacy", "primary_value")]
        for name in names:
            if name not in primary and group[name].notna().any():
                known = {"attack": attack, "stage": stage, "primary": " ".join(sorted(primary)), "metric": name}
                yield known | _compare(group, name, *partners)


def _compare(group: pd.DataFrame, name: str, efficacy: Against, primary: Against) -> dict[str, object]:
    distance = (group[name] - group[f"{name}_of_oracle"]).abs()
    closeness, raw = efficacy.correlation(-distance), primary.correlation(group[name])
    used = group[np.isfinite(distance.astype(float))]
    return {
        **_ends("closeness", closeness),
        **_ends("raw", raw),
        "n": closeness.n,
        "n_methods": used["method"].nunique(),
        "n_seeds": used["seed"].nunique(),
        "efficacy_range": float(used["efficacy"].max() - used["efficacy"].min()),
        "reason": _reason(group, name, closeness, raw),
    }


def _ends(name: str, found: RankCorrelation) -> dict[str, float]:
    return {name: found.rho, f"{name}_low": found.low, f"{name}_high": found.high}


def _reason(group: pd.DataFrame, name: str, closeness: RankCorrelation, raw: RankCorrelation) -> str:
    if group[f"{name}_of_oracle"].isna().all():
        return "unknown for the oracle"
    return closeness.reason or (f"raw: {raw.reason}" if raw.reason else "")


def sentence(table: pd.DataFrame, attack: str, *, shown: int | None = None) -> str:
    """What the agreement table says about `attack`, from its confirmation, or from its tuning where that is all.

    Args:
        table: Of `agreement`.
        attack: Name of the attack.
        shown: Names at most so many metrics of a kind.

    Returns:
        "" where nothing was measured; the table says why where nothing can be said.
    """
    own = table[table["attack"] == attack]
    stage = next((s for s in STAGES if (own["stage"] == s).any()), "")
    own = own[own["stage"] == stage]
    if own.empty:
        return ""
    primary = own["primary"].iloc[0] or "the primary metric"
    spread = own["efficacy_range"].max()
    if spread < VARIES:
        return f"nothing to say: over {stage} efficacy differs by {spread:.2f} at most"
    if own["closeness_low"].isna().all():
        few = own["n_methods"].max() < LEAST_METHODS
        return f"{'too few methods' if few else 'too little varies'} to say which of them agree with {primary}"
    most = {column: int(own[column].max()) for column in UNITS}
    low, high = own["closeness_low"], own["closeness_high"]
    kinds = {
        f"rank models as {primary} does (interval above {CLEAR:g})": low > CLEAR,
        "agree with it more weakly (interval above 0)": (low > 0) & (low <= CLEAR),
        "go against it (interval below 0)": high < 0,
        "no agreement shown (interval includes 0)": (low <= 0) & (high >= 0),
        "cannot be said": low.isna(),
    }
    parts = [f"{text}: {_listed(own[which], most, shown)}" for text, which in kinds.items() if which.any()]
    fewer = (own.loc[low.notna(), list(UNITS)] < pd.Series(most)).any(axis=None)
    return f"over {stage} ({'up to ' if fewer else ''}{_size(most)}), {_membership(own, primary)}{'; '.join(parts)}"


def _size(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {UNITS[column]}" + ("" if count == 1 else "s") for column, count in counts.items())


def _membership(own: pd.DataFrame, primary: str) -> str:
    """How many membership attacks see what the primary metric sees."""
    attacks = own[own["metric"].map(lambda name: any(word in name for word in MEMBERSHIP))]
    attacks = attacks[attacks["closeness_low"].notna()]
    if attacks.empty:
        return ""
    seeing = attacks[attacks["closeness_low"] > 0]
    return f"{len(seeing)} of {len(attacks)} membership measures see what {primary} sees (interval above 0); "


def _listed(own: pd.DataFrame, most: dict[str, int], shown: int | None) -> str:
    names = [_named(row, most) for row in own.to_dict("records")]
    more = len(names) - shown if shown is not None else 0
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def _named(row: dict[Any, Any], most: dict[str, int]) -> str:
    """A metric, its correlation, and what of its sample is smaller than `most`."""
    if math.isnan(row["closeness_low"]):
        return f"{row['metric']} ({row['reason']})"
    fewer = {column: int(row[column]) for column, count in most.items() if row[column] < count}
    return f"{row['metric']} {row['closeness']:+.2f}" + (f" ({_size(fewer)})" if fewer else "")
