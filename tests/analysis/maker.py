"""Synthetic sweeps whose truth is known, in the very form that a sweep writes.

Per attack that takes, efficacy at budgets 2, 4, 6, 8, 10 %:
- retrain@b    0.60, utility gap 0.00
- winner       equal at 2 %, +0.20 from 4 % on, utility gap 0.01: beats it at b >= 4 %
- tie          +0.00 with ten times the noise: undecided
- careless     +0.30, utility gap 0.08: better, but outside the tolerance
- fragile      +0.25, diverges on one confirmation seed from 6 % on
- loser        -0.30: worse everywhere
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sweeps.schema.lines import from_content
from sweeps.schema.records import TRIAL_COLUMNS, flatten

LADDER = (0.02, 0.04, 0.06, 0.08, 0.10)
RETRAIN = 0.60
METHODS: dict[str, tuple[float, float, float]] = {  # difference to retrain@b, utility gap, noise
    "winner": (0.20, 0.01, 0.01),
    "tie": (0.00, 0.00, 0.10),
    "careless": (0.30, 0.08, 0.01),
    "fragile": (0.25, 0.00, 0.01),
    "loser": (-0.30, 0.00, 0.01),
}
TUNING, CONFIRMATION = (0, 1), (10, 11, 12)


class Maker:
    """Makes the trials of one sweep; the same arguments give the same trials."""

    def __init__(
        self,
        *,
        attacks: Sequence[str] = ("patch", "noise"),
        dead: Sequence[str] = ("flip",),
        confirmation: Sequence[int] = CONFIRMATION,
        proposals: int = 3,
        methods: Mapping[str, tuple[float, float, float]] = METHODS,
    ) -> None:
        self.rng = np.random.default_rng(7)
        self.attacks, self.dead, self.seeds, self.proposals = attacks, dead, confirmation, proposals
        self.methods = methods

    def trials(self) -> Iterator[dict[str, Any]]:
        for attack in (*self.attacks, *self.dead):
            took = attack not in self.dead
            for seed in (*TUNING, *self.seeds):
                rival = RETRAIN + self.rng.normal(0, 0.05)
                yield from self._references(attack, seed, took, rival)
                for method in self.methods:
                    yield from self._method(attack, method, seed, took, rival)

    def _trial(self, attack: str, seed: int, took: bool, **rest: Any) -> dict[str, Any]:
        known = dict.fromkeys(TRIAL_COLUMNS) | {
            "schema": 1, "sweep": "known", "study": attack, "scenario_id": f"{attack}{seed}", "group_id": attack,
            "dataset": "digits", "model": "mlp", "attack": attack, "attack_settings": "{}", "poison_fraction": 0.05,
            "discovery_rate": 1.0,
            "settings": "{}", "chosen_for": "", "seed": seed, "unlearning_seed": seed, "primary_metric": "score",
            "attack_took": took, "corrupted_value": 0.8 if took else 0.1, "oracle_value": 0.1,
            "corrupted_test_accuracy": 0.95, "oracle_test_accuracy": 0.96, "oracle_flops": 1e12, "oracle_seconds": 4.0,
            "held_out": "test" if seed in self.seeds else "validation", "oracle_sample_passes": 1e4,
            "error": "", "finished_at": 1.0, "code_version": "abc", "machine": "{}",
        }  # fmt: skip
        trial = known | rest
        key = (attack, seed, trial["stage"], trial["method"], trial["settings"])
        return trial | {"trial_id": "-".join(map(str, key))}

    def _references(self, attack: str, seed: int, took: bool, rival: float) -> Iterator[dict[str, Any]]:
        for method, value, removal, z in (
            ("none", 0.8, 0.0, 6.0),
            ("oracle", 0.1, 1.0, 0.3),
            ("retrain", 0.12, None, 0.2),
        ):
            removal = float(self.rng.normal(1.0, 0.02)) if removal is None else removal
            value = value if took else 0.1
            rung = self.rung(1.0, removal, 0.0, took) | {"primary_value": value, "primary_z": z}
            yield self._trial(attack, seed, took, stage="reference", method=method, rungs=[rung])
        rungs = [self.rung(b, rival, 0.0, took) for b in LADDER]
        yield self._trial(attack, seed, took, stage="reference", method="retrain_at_budget", rungs=rungs)

    def _method(self, attack: str, method: str, seed: int, took: bool, rival: float) -> Iterator[dict[str, Any]]:
        stage = "confirmation" if seed in self.seeds else "tuning"
        for proposal in range(1 if stage == "confirmation" else self.proposals):
            rungs = [self._method_rung(method, b, took, rival, proposal) for b in LADDER]
            if method == "fragile" and seed == self.seeds[-1]:
                rungs = [r if r["budget"] < 0.06 else broken(r) for r in rungs]
            chosen = json.dumps(list(LADDER)) if stage == "confirmation" else ""
            yield self._trial(
                attack, seed, took, stage=stage, method=method, proposal=proposal, rungs=rungs, chosen_for=chosen,
                settings=json.dumps({"name": method, "lr": 0.1 / (1 + proposal)}),
            )  # fmt: skip

    def _method_rung(self, method: str, budget: float, took: bool, rival: float, proposal: int) -> dict[str, Any]:
        difference, gap, noise = self.methods[method]
        if method == "winner" and budget < 0.04:
            difference, noise = 0.0, 0.1
        removal = rival + difference - 0.05 * proposal + self.rng.normal(0, noise)
        rung = self.rung(budget, float(removal), gap, took)
        return rung | {"retrain_at_budget_efficacy": rival if took else None}

    def rung(self, budget: float, removal: float, gap: float, took: bool) -> dict[str, Any]:
        efficacy = 1 - abs(1 - removal)
        return {
            "budget": budget, "budget_spent": 0.98 * budget, "flops": budget * 1e12, "sample_passes": budget * 1e4,
            "steps": 1000 * budget, "seconds": 4.4 * budget, "seconds_share": 1.1 * budget, "status": "ok",
            "primary_value": 0.8 - 0.7 * removal, "primary_error": 0.1, "removal": removal if took else None,
            "efficacy": efficacy if took else None, "test_accuracy": 0.96 - gap, "utility_gap": gap,
            "score": efficacy - 10 * max(0.0, gap - 0.02) if took else None, "metrics": {"gus": 0.5},
        }  # fmt: skip


def broken(rung: dict[str, Any]) -> dict[str, Any]:
    """The same rung, diverged."""
    lost = ("primary_value", "removal", "efficacy", "test_accuracy", "utility_gap", "score")
    return rung | dict.fromkeys(lost) | {"status": "diverged"}


INFO: dict[str, Any] = {
    "name": "known",
    "command": "python sweeps/budget_sweep.py --preset known",
    "spec": {
        "dataset": "digits",
        "attacks": [{"name": "patch", "label": "patch"}, {"name": "noise", "label": "noise"}, {"label": "flip"}],
        "methods": list(METHODS),
        "budgets": list(LADDER),
        "seeds": {"tuning": list(TUNING), "confirmation": list(CONFIRMATION)},
        "utility_tolerance": 0.02,
    },
    "versions": {"numpy": "2.0"},
    "code_version": "abc",
    "started_at": "2025-01-01",
    "machine": {"cpu": "one"},
    "metrics": {"gus": "Gaussian unlearning score"},
    "methods": {"winner": {"summary": "wins", "cite": "Nobody 2025"}},
}


def write_sweep(folder: Path, *, info: dict[str, Any] | None = None, parts: bool = False, **arguments: Any) -> Path:
    """A results folder as a sweep leaves it; with `parts`, before the table was made."""
    trials = list(Maker(**arguments).trials())
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sweep.json").write_text(json.dumps(INFO if info is None else info), encoding="utf-8")
    if parts:
        target = folder / "records" / "cell"
        target.mkdir(parents=True)
        (target / "a.jsonl").write_text("".join(json.dumps(t) + "\n" for t in trials), encoding="utf-8")
    else:
        rows(trials).to_parquet(folder / "records.parquet")
    return folder


def rows(trials: Sequence[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame([row for trial in trials for row in flatten(from_content(trial))])
