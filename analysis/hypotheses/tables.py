"""The paper's two hypotheses as tables, from the measured numbers.

Every comparison is paired: poisons against clean rows removed from the same corrupted set, under the same seed.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.hypotheses.sentences import ABOVE, BELOW, NOT_ABOVE, TOO_FEW
from analysis.results.compare import SIGNIFICANT
from analysis.statistics.intervals import Interval, benjamini_hochberg, mean_interval, p_value
from sweeps.schema.hypotheses import HYPOTHESIS_COLUMNS
from unlearn_core.checks import InputError

CONTROLS = ("random", "matched")
REMEDY = "run python -P -m sweeps.hypotheses"
LATE = 100
"""Steps of gradient descent after which the table shows the accumulated update."""
RANK = 0.1
"""Singular vectors, as a share of the dimensions, outside of which the table shows the share of v."""
SIDES = ("poison", "random")


class Measured(NamedTuple):
    """What `sweeps.hypotheses` wrote: rows in HYPOTHESIS_COLUMNS, and facts of the run."""

    rows: pd.DataFrame
    facts: dict[str, Any]


def load(folder: Path) -> Measured:
    """Raises InputError if the folder has no results."""
    try:
        rows = pd.read_parquet(folder / "hypotheses.parquet")
        facts = json.loads((folder / "hypotheses.json").read_text())
    except (OSError, ValueError) as problem:
        raise InputError(
            f"{folder} holds no test of the hypotheses ({problem}); run python -P -m sweeps.hypotheses"
        ) from None
    missing = [name for name in HYPOTHESIS_COLUMNS if name not in rows]
    if missing:
        raise InputError(
            f"{folder}: hypotheses.parquet lacks {', '.join(missing)}; run python -P -m sweeps.hypotheses again"
        )
    return Measured(rows, facts)


def per_seed(rows: pd.DataFrame, measure: str, *, at: float | None = None, problem: str = "softmax") -> pd.DataFrame:
    """Values by (attack, seed) and group; the mean where a seed has several (mini-batches)."""
    own = rows[(rows["measure"] == measure) & (rows["problem"] == problem)]
    own = own if at is None else own[np.isclose(own["at"], at)]
    return own.pivot_table(index=["attack", "seed"], columns="group", values="value", aggfunc="mean", sort=False)


def comparison(values: pd.DataFrame) -> pd.DataFrame:
    """Poison minus each control, one row per (attack, control).

    Mean difference, 95 % interval over seeds, p, q and verdict. q: Benjamini-Hochberg over all these rows.
    """
    found = [
        {"attack": attack, "control": control, **_difference(own["poison"] - own[control])}
        for attack, own in values.groupby(level="attack", sort=False)
        for control in CONTROLS
        if control in own
    ]
    table = pd.DataFrame(found, columns=["attack", "control", "difference", "low", "high", "n", "p"])
    table["q"] = benjamini_hochberg(table["p"])
    signs = zip(table["q"], table["difference"], strict=True)
    return table.assign(verdict=[_verdict(q, difference) for q, difference in signs])


def _difference(differences: pd.Series) -> dict[str, float]:
    found = mean_interval(differences)
    return {"difference": found.mean, "low": found.low, "high": found.high, "n": found.n, "p": p_value(differences)}


def _verdict(q: float, difference: float) -> str:
    if not q < SIGNIFICANT:
        return NOT_ABOVE
    return ABOVE if difference > 0 else BELOW


def shift_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Hypothesis 1 with all poisons removed, one row per attack.

    Columns:
        took: seeds in which the attack succeeded, of all.
        verdict, verdict_taken: whether the distance is above both controls in L1, over all seeds and over those in
            which the attack succeeded (empty: fewer than two). An attack that failed says nothing about unlearning.
        poison, random, matched: mean L1 distance that the minimiser moves.
        ratio, ratio_low, ratio_high: poison / random, geometric mean over seeds and 95 % interval.
        l2_ratio, l2_against_random: the same in L2, where few large changes count for more than many small ones.
        residual_poison, residual_random: mean ‖p − onehot‖ of the removed rows before they go.
        against_random, against_matched: whether the distance is above, with q.
    """
    distances = per_seed(rows, "l1", at=1)
    compared, in_l2 = (
        comparison(per_seed(rows, measure, at=1)).set_index(["attack", "control"]) for measure in ("l1", "l2")
    )
    taken, residual = per_seed(rows, "took"), per_seed(rows, "residual", at=1)
    over_taken = both(comparison(distances[taken["corrupted"].reindex(distances.index) == 1]))
    over_all = both(compared.reset_index())
    table = []
    for attack in attacks_of(distances):
        ratio, l2 = (_ratio(of(per_seed(rows, measure, at=1), attack)) for measure in ("l1", "l2"))
        row: dict[str, object] = {"attack": attack, "took": _took(of(taken, attack)["corrupted"])}
        row |= {"verdict": over_all[attack], "verdict_taken": over_taken.get(attack, TOO_FEW)}
        row |= {group: of(distances, attack)[group].mean() for group in ("poison", *CONTROLS)}
        row |= {"ratio": ratio.mean, "ratio_low": ratio.low, "ratio_high": ratio.high}
        row |= {"l2_ratio": l2.mean, "l2_against_random": in_l2.at[(attack, "random"), "verdict"]}
        row |= {f"residual_{group}": of(residual, attack)[group].mean() for group in ("poison", "random")}
        for control in CONTROLS:
            row |= {f"against_{control}": compared.at[(attack, control), "verdict"]}
            row |= {f"q_{control}": compared.at[(attack, control), "q"]}
        table.append(row)
    return pd.DataFrame(table)


def distance_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Mean L1 distance over seeds by attack and share removed, one column per group."""
    own = rows[(rows["measure"] == "l1") & (rows["problem"] == "softmax")]
    means = own.pivot_table(index=["attack", "at"], columns="group", values="value", sort=False)
    return means[["poison", *CONTROLS]].rename_axis(["attack", "share"]).reset_index()


def both(compared: pd.DataFrame) -> dict[str, str]:
    """Of every attack with at least two seeds in a `comparison` whether it is above both controls."""
    return {
        str(attack): ABOVE if (own["verdict"] == ABOVE).all() else NOT_ABOVE
        for attack, own in compared[compared["n"] > 1].groupby("attack", sort=False)
    }


def attacks_of(values: pd.DataFrame) -> list[str]:
    """Labels in the order of the rows."""
    return [str(attack) for attack in values.index.get_level_values("attack").unique()]


def of(values: pd.DataFrame, attack: str) -> pd.DataFrame:
    """The seeds of one attack."""
    return values[values.index.get_level_values("attack") == attack]


def _ratio(own: pd.DataFrame) -> Interval:
    """Poison / random over seeds, as a geometric mean."""
    found = mean_interval(np.log(own["poison"] / own["random"]))
    return Interval(math.exp(found.mean), math.exp(found.low), math.exp(found.high), found.n)


def _took(took: pd.Series) -> str:
    return f"{int(took.sum())} of {len(took)}"


def direction_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Hypothesis 2, one row per problem and attack; means over seeds.

    Columns: for the poisons and for random clean rows the cosine with v on all retained rows (`full`), on mini-batches
    (`batch`, mean over batches), of the accumulated update after 100 steps on mini-batches (`update`) and on all
    retained rows (`update_full`), and the share of ‖v‖²
    outside the leading singular vectors (`outside`, a tenth of the dimensions). full_verdict, batch_verdict: whether
    the poisons' cosine is above that of random clean rows, or, as the hypothesis has it, below.
    """
    if not len(rows[rows["measure"] == "full_cosine"]):
        return pd.DataFrame()
    problems = rows.loc[rows["measure"] == "full_cosine", "problem"].unique()
    return pd.concat([_directions(rows, str(problem)) for problem in problems], ignore_index=True)


def _directions(rows: pd.DataFrame, problem: str) -> pd.DataFrame:
    means = {name: per_seed(rows, f"{name}_cosine", problem=problem) for name in ("full", "batch")}
    verdicts = {name: comparison(values).set_index(["attack", "control"])["verdict"] for name, values in means.items()}
    means["update"] = per_seed(rows, "path_cosine_batch", at=LATE, problem=problem)
    means["update_full"] = per_seed(rows, "path_cosine_full", at=LATE, problem=problem)
    means["outside"] = per_seed(rows, "residual_share", at=RANK, problem=problem)
    table = []
    for attack in attacks_of(means["full"]):
        row: dict[str, object] = {"problem": problem, "attack": attack}
        for name, values in means.items():
            row |= {f"{name}_{g}": of(values, attack)[g].mean() if g in values else math.nan for g in SIDES}
        row |= {f"{name}_verdict": found.at[(attack, "random")] for name, found in verdicts.items()}
        table.append(row)
    return pd.DataFrame(table)


def effect_table(rows: pd.DataFrame) -> pd.DataFrame:
    """What each attack did to the exact minimiser, and the distance that undoes it.

    Its own metric, its z (the Gaussian score's), accuracy, of the corrupted and the oracle minimiser, means over
    seeds.
    """
    columns = {name: per_seed(rows, name) for name in ("primary", "z", "test_accuracy")}
    distance = per_seed(rows, "l1", at=1)["poison"].groupby(level="attack", sort=False).mean()
    table = pd.DataFrame({"l1_poison": distance})
    for name, values in columns.items():
        for group in values:
            table[f"{name}_{group}"] = values[group].groupby(level="attack", sort=False).mean()
    return table.rename_axis("attack").reset_index()
