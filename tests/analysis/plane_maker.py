"""A made sweep over discovery rates, with metrics whose agreement with the primary metric is known.

Of each model: `faithful` moves as the primary metric does, `opposed` is at the oracle's value where the primary metric
is far from it, `deaf` is noise, `still` is constant, `sparse` is measured on every second rung, and `klom_forget`
comes from ensembles alone. Healed is removal times the discovery rate, cut to [0, 1]: what was not discovered stays.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.analysis.maker import INFO, Maker, rows

ATTACKS = {"flip": "low", "confusion": "medium", "patch": "high"}
RATES = (0.1, 0.5, 1.0)
UTILITY, ORACLE = 0.9, 0.95
"""Utility of models that lost none, and what the oracle heals."""


def many_methods(n: int) -> dict[str, tuple[float, float, float]]:
    """Differences to retrain@b from -0.5 to 0.3, some with a utility gap."""
    return {
        f"method_{i:02d}": (float(difference), 0.05 if i % 5 == 4 else 0.005, 0.03)
        for i, difference in enumerate(np.linspace(-0.5, 0.3, n))
    }


class PlaneMaker(Maker):
    """Trials for each attack and discovery rate, and their ensembles."""

    rate = 1.0

    def __init__(self, *, n_methods: int = 6, rates: Sequence[float] = RATES, **arguments: Any) -> None:
        defaults: dict[str, Any] = {"attacks": list(ATTACKS), "dead": [], "methods": many_methods(n_methods)}
        super().__init__(**(defaults | arguments))
        self.rates = rates

    def trials(self) -> Iterator[dict[str, Any]]:
        for rate in self.rates:
            self.rate = rate
            for trial in super().trials():
                known = {"discovery_rate": rate, "trial_id": f"{rate}-{trial['trial_id']}"}
                if trial["method"] in ("oracle", "retrain"):  # trained without any poison, whatever was discovered
                    trial["rungs"][0]["metrics"] |= {"healed": ORACLE, "utility_times_healed": ORACLE * UTILITY}
                told = trial | known | {"regularity": ATTACKS.get(trial["attack"])}
                yield told
                yield from self._more(told)

    def _more(self, trial: dict[str, Any]) -> Iterator[dict[str, Any]]:
        ensemble = trial["stage"] == "confirmation" or trial["method"] in ("none", "oracle")
        if ensemble and trial["held_out"] == "test":
            klom = [{"klom_forget": 5 * abs(1 - (r["removal"] or 0.0))} for r in trial["rungs"]]
            rungs = [
                {"budget": r["budget"], "status": "ok", "metrics": k} for r, k in zip(trial["rungs"], klom, strict=True)
            ]
            yield trial | {"stage": "ensemble", "rungs": rungs, "trial_id": f"ensemble-{trial['trial_id']}"}
        if trial["method"] == "oracle" and self.rate < 1:
            rung = self.rung(1.0, self.rate, 0.0, took=True)
            yield trial | {"method": "retrain_discovered", "rungs": [rung], "trial_id": f"d-{trial['trial_id']}"}

    def rung(self, budget: float, removal: float, gap: float, took: bool) -> dict[str, Any]:
        whole = super().rung(budget, removal, gap, took)
        healed, utility = float(np.clip(removal * self.rate, 0, 1)), UTILITY - gap
        noise, efficacy = float(self.rng.normal()), 1 - abs(1 - removal)
        return whole | {
            "metrics": {
                "healed": healed, "utility": utility, "utility_times_healed": healed * utility,
                "faithful": 0.5 + 0.3 * (1 - removal), "opposed": 0.0 if removal == 1 else efficacy, "still": 0.25,
                "membership_deaf": noise, "sparse": removal if round(100 * budget) % 4 or budget == 1 else None,
            }
        }  # fmt: skip


def write_plane(folder: Path, **arguments: Any) -> Path:
    """The results folder of a made sweep."""
    maker = PlaneMaker(**arguments)
    folder.mkdir(parents=True, exist_ok=True)
    rows(list(maker.trials())).to_parquet(folder / "records.parquet")
    spec = INFO["spec"] | {"attacks": [{"label": a} for a in maker.attacks], "methods": list(maker.methods)}
    info = INFO | {"name": "plane", "spec": spec, "metrics": {"klom_forget": "distance from the oracles; target: 0"}}
    (folder / "sweep.json").write_text(json.dumps(info), encoding="utf-8")
    return folder
