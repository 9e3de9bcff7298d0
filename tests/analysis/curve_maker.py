"""The known sweep with points of ROC curves, Gaussian metrics and costs whose values follow from seed and method."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.analysis.maker import INFO, Maker, rows
from unlearn_core.metrics.roc import curve_columns

SEED_STEP = 0.001
"""By how much a rate grows with the seed, so that means and ranges over seeds are known."""


def rates(family: str, method: str, seed: int) -> dict[str, float | None]:
    """Points of one model's curve: the square root of the rate where poison shows, else the rate; few negatives."""
    power = 0.5 if family == "gaussian" and method != "oracle" else 1.0
    return {
        column: None if family == "membership" and rate < 0.005 else rate**power + SEED_STEP * seed
        for rate, column in curve_columns(family).items()
    }


class CurveMaker(Maker):
    """`patch` has Gaussian poisons, `noise` has none; crafting costs 2e9 FLOPs and `seed` seconds."""

    def _trial(self, attack: str, seed: int, took: bool, **rest: Any) -> dict[str, Any]:
        costs = {
            "poisons": 50, "craft_flops": 2e9, "craft_seconds": float(seed), "surrogate_flops": 4e12,
            "surrogate_seconds": 8.0, "victim_flops": 1e12, "victim_seconds": 5.0,
        }  # fmt: skip
        trial = super()._trial(attack, seed, took, **rest) | costs
        gaussian = {"gaussian_score": 0.7, "gaussian_tpr_exact": 0.2 + SEED_STEP * seed}
        for rung in trial["rungs"]:
            rung["metrics"] = rates("membership", trial["method"], seed)
            if attack == "patch":
                rung["metrics"] |= rates("gaussian", trial["method"], seed) | gaussian
        return trial | {"primary_metric": "gaussian_score" if attack == "patch" else "backdoor_success"}


def write_curves(folder: Path, **arguments: Any) -> Path:
    """The results folder of a made sweep."""
    trials: Iterator[dict[str, Any]] = CurveMaker(**arguments).trials()
    folder.mkdir(parents=True, exist_ok=True)
    rows(list(trials)).to_parquet(folder / "records.parquet")
    (folder / "sweep.json").write_text(json.dumps(INFO), encoding="utf-8")
    return folder
