"""What it costs to make each attack's poisons, in seconds, FLOPs and trainings."""

from __future__ import annotations

import pandas as pd

from analysis.results.analyse import Results

MEANS = [
    "craft_seconds", "craft_flops", "surrogate_seconds", "surrogate_flops", "victim_seconds", "victim_flops",
]  # fmt: skip


def attack_costs(results: Results) -> pd.DataFrame:
    """One row per attack: means over all its scenarios whose costs are known, of tuning and confirmation.

    Columns:
        attack: its label without the discovery rate, on which crafting does not depend.
        poisons, n_scenarios: number of poisons, and of scenarios in the means.
        craft_*: making the poisons; surrogate_*: training the clean model that the attack asked for, 0 without one;
            victim_*: training the corrupted model, all from scratch.
        craft_trainings, surrogate_trainings: their FLOPs as a multiple of the victim's.
    """
    rows = results.references[results.references["method"] == "none"]
    rows = rows.drop_duplicates(["base_attack", "seed"]).dropna(subset="craft_flops")
    ratios = {f"{part}_trainings": rows[f"{part}_flops"] / rows["victim_flops"] for part in ("craft", "surrogate")}
    grouped = rows.assign(**ratios).groupby("base_attack", sort=False)
    table = grouped[["poisons", *MEANS, *ratios]].mean().join(grouped.size().rename("n_scenarios"))
    order = ["poisons", "n_scenarios", "craft_seconds", "craft_flops", "craft_trainings", "surrogate_seconds",
             "surrogate_flops", "surrogate_trainings", "victim_seconds", "victim_flops"]  # fmt: skip
    return table[order].rename_axis("attack").reset_index()
